-- Publishes a run again. Given: `run`, its `message`, `lives`, and `why`: 'due' for another attempt after a passing
-- failure; 'lost', its lease has run out; 'crashed' or 'given back' by the process with this `token`. Crashes are
-- counted; at `max_crashes` the run ends with the state `failure`, and its jobs are listed as dead. Returns what became
-- of it: 'published', 'condemned', 'cancelled', 'ended', 'gone', or 'kept' where it is.

local run, why = given.run, given.why
local task, priority, number, over, cancel_at, process =
  fields(run, 'task', 'priority', 'number', 'over', 'cancel_at', 'process')
local waiting = waits(run)
local set_aside = redis.call('ZSCORE', key.retries, run)

if why == 'due' then
  if redis.call('ZREM', key.retries, run) == 0 then return 'kept' end
elseif why == 'lost' then
  local lease = redis.call('ZSCORE', key.leases, run)
  if not lease or tonumber(lease) > now then return 'kept' end
elseif process and process ~= given.token then
  return 'kept'
end

if over or not task or not wanted(run) and not cancel_at then
  unhold(run)
  return task and 'ended' or 'gone'
end
if cancel_at then
  end_run(run, 'REVOKED', revoked(run))
  return 'cancelled'
end
redis.call('ZREM', key.leases, run)
if why == 'lost' then
  local passed = tonumber(lane_field(task, priority, 'started') or 0)
  -- Its worker has gone before it started, and the message is where it was.
  local on_lane = waiting and tonumber(number) > passed and redis.call('LLEN', lane_key(task, priority)) > 0
  if on_lane or set_aside then return 'kept' end
end
if why ~= 'due' then
  if set_aside then return 'kept' end
  if not waiting and why ~= 'given back' then
    if redis.call('HINCRBY', key.job .. run, 'crashes', 1) >= given.max_crashes then
      given.dead = true
      end_run(run, 'FAILURE', given.failure)
      return 'condemned'
    end
  end
  -- It has been waited for already, and does not wait again behind those that came later.
  unhold(run)
  redis.call('HSET', key.job .. run, 'priority', HIGH)
  redis.call('DEL', key.meta .. run)
  for _, id in ipairs(subscribers(run)) do
    list(id, 'pending')
    announce(id, 'PENDING')
  end
end
publish(run, given.message)
redis.call('HSET', key.job .. run, 'updated_at', now)
return 'published'
