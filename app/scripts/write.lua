-- The fence: stores one state of a run, if that is let through. Given: `run`, `state`, its `value` as Celery stores it,
-- the `token` of the process that runs it, `lives`; `max_crashes`; `retry_at` with RETRY; which model `answered` with
-- SUCCESS; whether it is only `told` of by who cannot leave off: then the end of a run that was cancelled is for who can.
-- Returns what became of it and, with STARTED, the record.

local run, state, value, token = given.run, given.state, given.value, given.token
local NEXT_TURN = 2000

-- A run that has crashed, and may do so only once more, is started beside no other such run: if their worker dies, it is
-- known whose fault it was. So what was only near when a worker died is not condemned for it.
local function has_its_turn(crashes)
  if crashes == 0 or crashes < given.max_crashes - 1 then return true end
  local other = redis.call('GET', key.last_chance)
  if other and other ~= run and fields(other, 'process') then return false end
  redis.call('SET', key.last_chance, run, 'PX', lives.open)
  return true
end

local task, priority, over, cancel_at, process, crashes =
  fields(run, 'task', 'priority', 'over', 'cancel_at', 'process', 'crashes')
if not task then return {'gone'} end
if over then return {'ended'} end
if not cancel_at and not wanted(run) then return {'gone'} end
-- A run is its process's, though its lease has run out, until it is published again. Without a token writes who ends
-- what has not started.
if process and process ~= token or not process and token ~= '' and state ~= 'STARTED' then return {'held'} end
-- A copy of its message must not cut its wait for another attempt short.
if state == 'STARTED' and redis.call('ZSCORE', key.retries, run) then return {'held'} end
local may_start = state ~= 'STARTED' or cancel_at or has_its_turn(tonumber(crashes or 0))
if not may_start then
  unhold(run)
  redis.call('ZADD', key.retries, now + NEXT_TURN, run)
  return {'later'}
end
if cancel_at then
  if not given.told then end_run(run, 'REVOKED', revoked(run)) end
  return {fields(run, 'left') == 'ERASED' and 'gone' or 'cancelled'}
end

-- How long it takes from one start to the next, in ms, while the lane is never empty. The starts of the first while
-- say nothing: as many as there are processes come at once.
local function keep_pace()
  local interval, before, busy, busy_since, count, since =
    lane_fields(task, priority, 'interval', 'started_at', 'busy', 'busy_since', 'count', 'since')
  local duration = tonumber(lane_fields(task, 'all', 'duration') or math.huge)
  local slowest = 10 * (tonumber(interval or 0) + duration) + 1000
  local steady = busy == '1' and (duration == math.huge or now - (before or 0) <= slowest)
  local pace = {count = 0, since = now, busy_since = steady and busy_since or now, started_at = now}
  if steady and now - pace.busy_since >= duration then
    pace.count, pace.since = (count or 0) + 1, since or 0
    pace.interval = (now - pace.since) / pace.count
    -- Of many starts, the last ones count.
    if pace.count >= 64 then pace.count, pace.since = 32, now - 32 * pace.interval end
  end
  pace.busy = redis.call('ZCARD', waiting_key(task, priority)) > 0 and 1 or 0
  set_lane_fields(task, priority, pace)
end

local function start()
  -- One that is ours already: the answer to this very start was lost.
  if not process then redis.call('HINCRBY', key.job .. run, 'attempts', 1) end
  redis.call('HSET', key.job .. run, 'process', token, 'started_at', now, 'updated_at', now)
  redis.call('ZADD', key.leases, now + LEASE_TTL, run)
  run_until(run, now + lives.open)
  local number, again = fields(run, 'number', 'again')
  if redis.call('ZREM', waiting_key(task, priority), run) == 1 then
    keep_pace()
    -- Of one that was published again while it waited, this may be the first message: the lane has not come to its last.
    if not again and tonumber(number) > tonumber(lane_fields(task, priority, 'started') or 0) then
      set_lane_fields(task, priority, {started = number})
    end
  end
  redis.call('HDEL', key.job .. run, 'retry_at', 'again')
end

local function put_aside()
  redis.call('HINCRBY', key.job .. run, 'retries', 1)
  redis.call('HSET', key.job .. run, 'retry_at', given.retry_at, 'updated_at', now)
  unhold(run)
  redis.call('ZADD', key.retries, given.retry_at, run)
  run_until(run, given.retry_at + lives.open)
end

local function learn_duration()
  local took, before = now - (fields(run, 'started_at') or now), lane_fields(task, 'all', 'duration')
  set_lane_fields(task, 'all', {duration = before and 0.9 * before + 0.1 * took or took})
end

if STATUS[state] then
  local expected = fields(run, 'model_is')
  if state == 'SUCCESS' then learn_duration() end
  -- Of another model than it stands for, when a worker has a newer one: nobody else is to have it.
  end_run(run, state, value, {unlike = expected and expected ~= given.answered})
  return {'stored'}
end

local record, said = {}, {'KEEPTTL'}
if state == 'STARTED' then
  start()
  record = redis.call('HGETALL', key.job .. run)
  redis.call('HDEL', key.job .. run, 'waiting_since')
  said = {'PXAT', now + lives.open}
elseif state == 'RETRY' then
  put_aside()
  said = {'PXAT', given.retry_at + lives.open}
else
  redis.call('HSET', key.job .. run, 'updated_at', now)
end
redis.call('SET', key.meta .. run, value, unpack(said))
for _, id in ipairs(subscribers(run)) do
  if state == 'STARTED' then list(id, 'processing') end
  announce(id, state)
end
return {'stored', record}
