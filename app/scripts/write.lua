-- The fence: stores one state of a run, if that is let through. Given: `run`, `state`, the `token` of the process that runs
-- it, `lives`; `max_crashes`; `retry_at` with RETRY; which model `answered` with SUCCESS; whether it is only `told` of by
-- who cannot leave off: then the end of a run that was cancelled is for who can; and as a text what Celery stores of it.
-- Returns what became of it and, with STARTED, what its process needs to know of the run.

local id, state, value, token = given.run, given.state, ARGV[2], given.token
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
-- starts of the first while say nothing: as many as there are processes come at once. The `pace` of a lane is whether
-- others waited after the last start, when that was, since when some always did, and how many starts came since when.
local function keep_pace()
  local lane = run.task .. ':' .. run.priority
  local interval, pace, started, duration =
    lane_fields(lane .. ':interval', lane .. ':pace', lane .. ':started', run.task .. ':all:duration')
  duration = tonumber(duration or math.huge)
  local busy, before, busy_since, count, since = string.match(pace or '', '(%d+) (%d+) (%d+) (%d+) (%d+)')
  local slowest = 10 * (tonumber(interval or 0) + duration) + 1000
  local steady = busy == '1' and (duration == math.huge or now - before <= slowest)
  busy_since = steady and busy_since or now
  if steady and now - busy_since >= duration then
    count = count + 1
    interval = string.format('%.3f', (now - since) / count)
    -- Of many starts, the last ones count.
    if count >= 64 then count, since = 32, now - 32 * interval end
  else
    count, since = 0, now
  end
  busy = redis.call('ZCARD', waiting_key(run.task, run.priority)) > 0 and 1 or 0
  local fields = {lane .. ':pace', string.format('%d %d %d %d %d', busy, now, busy_since, count, since)}
  if interval then fields[3], fields[4] = lane .. ':interval', interval end
  -- Of one that was published again while it waited, this may be the first message: the lane has not come to its last.
  if not run.again and tonumber(run.number) > tonumber(started or 0) then
    fields[#fields + 1] = lane .. ':started'
    fields[#fields + 1] = run.number
  end
  redis.call('HSET', key.lanes, unpack(fields))
end

-- Until when a run is kept that starts: one that has waited only a little is kept as long as it needs already.
local function started_until()
  local kept = tonumber(run.expires_at)
  return not run.left and kept >= now + lives.needed and kept or now + lives.open
end

local function start(ends)
  redis.call('ZADD', key.leases, text(now + LEASE_TTL), id)
  if redis.call('ZREM', waiting_key(run.task, run.priority), id) == 1 then keep_pace() end
  -- One that is ours already: the answer to this very start was lost.
  if not run.process then run.attempts = (run.attempts or 0) + 1 end
  run.process, run.started_at, run.updated_at = token, now, now
  run.retry_at, run.again = false, false
  return run_until(id, ends)
end

local function put_aside(ends)
  unhold(id)
  redis.call('ZADD', key.retries, text(given.retry_at), id)
  run.retries = (run.retries or 0) + 1
  run.retry_at, run.updated_at = given.retry_at, now
  return run_until(id, ends)
end

local function finish()
  if state == 'SUCCESS' then
    local field, took = run.task .. ':all:duration', now - (run.started_at or now)
    local before = lane_fields(field)
    redis.call('HSET', key.lanes, field, string.format('%.3f', before and 0.9 * before + 0.1 * took or took))
  end
  -- Of another model than it stands for, when a worker has a newer one: nobody else is to have it.
  end_run(id, state, value, {unlike = run.model_is and run.model_is ~= given.answered})
end

-- What the process is told that starts it: an URL, '' for none; when it was submitted, started, and put where it waited, -1
-- where that is not known; and how often it was started and put aside.
local function told_of_start()
  local since, retries = tonumber(run.waiting_since or -1), tonumber(run.retries or 0)
  return {run.url or '', tonumber(run.submitted_at), now, since, tonumber(run.attempts), retries}
end

-- Stores a state that does not end the run. Returns what is told of a start.
local function go_on()
  local ends = state == 'STARTED' and started_until() or state == 'RETRY' and given.retry_at + lives.open
  -- First what a full Redis refuses.
  redis.call('SET', key.meta .. id, value, unpack(ends and {'PXAT', text(ends)} or {'KEEPTTL'}))
  local ids, started
  if state == 'STARTED' then
    ids = start(ends)
    started = told_of_start()
    for _, one in ipairs(ids) do list(one, 'processing') end
  elseif state == 'RETRY' then
    ids = put_aside(ends)
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
  -- A copy of its message must not cut its wait for another attempt short. None waits that has not failed before.
  local has_failed = run.retries or run.crashes
  if state == 'STARTED' and has_failed and redis.call('ZSCORE', key.retries, id) then return {'held'} end
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
