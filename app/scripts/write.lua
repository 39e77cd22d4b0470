-- The fence: stores one state of a run, if that is let through. Given: `run`, `state`, its `value` as Celery stores it,
-- the `token` of the process that runs it, `lives`; `max_crashes`; `retry_at` with RETRY; which model `answered` with
-- SUCCESS; whether it is only `told` of by who cannot leave off: then the end of a run that was cancelled is for who can.
-- Returns what became of it and, with STARTED, the record.

local id, state, value, token = given.run, given.state, given.value, given.token
local run = record(id)
local NEXT_TURN = 2000

-- A run that has crashed, and may do so only once more, is started beside no other such run: if their worker dies, it is
-- known whose fault it was. So what was only near when a worker died is not condemned for it.
local function has_its_turn()
  local crashes = tonumber(run.crashes or 0)
  if crashes == 0 or crashes < given.max_crashes - 1 then return true end
  local other = redis.call('GET', key.last_chance)
  if other and other ~= id and record(other).process then return false end
  redis.call('SET', key.last_chance, id, 'PX', lives.open)
  return true
end

-- Notes a start that was waited for, and how long it takes from one to the next, in ms, while the lane is never empty. The
-- starts of the first while say nothing: as many as there are processes come at once.
local function keep_pace()
  local lane = run.priority .. ':'
  local interval, before, busy, busy_since, count, since, started, duration = lane_fields(
    run.task,
    lane .. 'interval', lane .. 'started_at', lane .. 'busy', lane .. 'busy_since', lane .. 'count', lane .. 'since',
    lane .. 'started', 'all:duration'
  )
  duration = tonumber(duration or math.huge)
  local slowest = 10 * (tonumber(interval or 0) + duration) + 1000
  local steady = busy == '1' and (duration == math.huge or now - (before or 0) <= slowest)
  local pace = {count = 0, since = now, busy_since = steady and busy_since or now, started_at = now}
  if steady and now - pace.busy_since >= duration then
    pace.count, pace.since = (count or 0) + 1, since or 0
    pace.interval = (now - pace.since) / pace.count
    -- Of many starts, the last ones count.
    if pace.count >= 64 then pace.count, pace.since = 32, now - 32 * pace.interval end
  end
  pace.busy = redis.call('ZCARD', waiting_key(run.task, run.priority)) > 0 and 1 or 0
  -- Of one that was published again while it waited, this may be the first message: the lane has not come to its last.
  if not run.again and tonumber(run.number) > tonumber(started or 0) then pace.started = run.number end
  set_lane_fields(run.task, run.priority, pace)
end

local function start()
  redis.call('ZADD', key.leases, text(now + LEASE_TTL), id)
  if redis.call('ZREM', waiting_key(run.task, run.priority), id) == 1 then keep_pace() end
  -- One that is ours already: the answer to this very start was lost.
  if not run.process then run.attempts = (run.attempts or 0) + 1 end
  run.process, run.started_at, run.updated_at = token, now, now
  run.retry_at, run.again = false, false
  return run_until(id, now + lives.open)
end

local function put_aside()
  unhold(id)
  redis.call('ZADD', key.retries, text(given.retry_at), id)
  run.retries = (run.retries or 0) + 1
  run.retry_at, run.updated_at = given.retry_at, now
  return run_until(id, given.retry_at + lives.open)
end

local function finish()
  if state == 'SUCCESS' then
    local took, before = now - (run.started_at or now), lane_fields(run.task, 'all:duration')
    set_lane_fields(run.task, 'all', {duration = before and 0.9 * before + 0.1 * took or took})
  end
  -- Of another model than it stands for, when a worker has a newer one: nobody else is to have it.
  end_run(id, state, value, {unlike = run.model_is and run.model_is ~= given.answered})
end

-- Stores a state that does not end the run. Returns the record as it is started.
local function go_on()
  local ends = state == 'STARTED' and now + lives.open or state == 'RETRY' and given.retry_at + lives.open
  -- First what a full Redis refuses.
  redis.call('SET', key.meta .. id, value, unpack(ends and {'PXAT', text(ends)} or {'KEEPTTL'}))
  local ids, started
  if state == 'STARTED' then
    ids = start()
    started = flat(id)
    run.waiting_since = false
    for _, one in ipairs(ids) do list(one, 'processing') end
  elseif state == 'RETRY' then
    ids = put_aside()
  else
    ids = subscribers(id)
    run.updated_at = now
  end
  for _, one in ipairs(ids) do redis.call('PUBLISH', key.passing .. one, state) end
  return started or {}
end

local function write()
  if not run.task then return {'gone'} end
  if run.over then return {'ended'} end
  if not run.cancel_at and not wanted(id) then return {'gone'} end
  -- A run is its process's, though its lease has run out, until it is published again. Without a token writes who ends
  -- what has not started.
  local is_ours = run.process == token or not run.process and (token == '' or state == 'STARTED')
  if not is_ours then return {'held'} end
  -- A copy of its message must not cut its wait for another attempt short.
  if state == 'STARTED' and redis.call('ZSCORE', key.retries, id) then return {'held'} end
  if state == 'STARTED' and not run.cancel_at and not has_its_turn() then
    unhold(id)
    redis.call('ZADD', key.retries, text(now + NEXT_TURN), id)
    return {'later'}
  end
  if run.cancel_at then
    if not given.told then end_run(id, 'REVOKED', revoked(id)) end
    return {run.left == 'ERASED' and 'gone' or 'cancelled'}
  end
  if STATUS[state] then
    finish()
    return {'stored'}
  end
  return {'stored', go_on()}
end

local outcome = write()
save()
return outcome
