-- Publishes a run again. Given: `run`, its `message`, `lives`, and `why`: 'due' for another attempt after a passing
-- failure; 'lost', its lease has run out; 'crashed' or 'given back' by the process with this `token`. Crashes are
-- counted; at `max_crashes` the run ends with the state `failure`, and its jobs are listed as dead. Returns what became
-- of it: 'published', 'condemned', 'cancelled', 'ended', 'gone', or 'kept' where it is.

local run, why = given.run, given.why
local task, priority, number, over, cancel_at, process =
  fields(run, 'task', 'priority', 'number', 'over', 'cancel_at', 'process')
local waiting = waits(run)
local set_aside = redis.call('ZSCORE', key.retries, run)

local function is_as_said()
  if why == 'due' then return redis.call('ZREM', key.retries, run) == 1 end
  if why == 'lost' then
    local lease = redis.call('ZSCORE', key.leases, run)
    return lease and tonumber(lease) <= now
  end
  return not process or process == given.token
end

-- Who had taken the message has put it back before it went, and it waits its turn.
local function is_on_its_lane()
  local passed = tonumber(lane_fields(task, priority, 'started') or 0)
  return waiting and tonumber(number) > passed and redis.call('LLEN', lane_key(task, priority)) > 0
end

if not is_as_said() then return 'kept' end
if over or not task or not wanted(run) and not cancel_at then
  unhold(run)
  return task and 'ended' or 'gone'
end
if cancel_at then
  end_run(run, 'REVOKED', revoked(run))
  return 'cancelled'
end
redis.call('ZREM', key.leases, run)

if why ~= 'due' then
  if set_aside or why == 'lost' and is_on_its_lane() then return 'kept' end
  -- One that waits was not started by who is gone.
  if not waiting and why ~= 'given back' then
    local crashes = redis.call('HINCRBY', key.job .. run, 'crashes', 1)
    if crashes >= given.max_crashes then
      end_run(run, 'FAILURE', given.failure, {dead = true})
      return 'condemned'
    end
  end
  unhold(run)
  if waiting then redis.call('HSET', key.job .. run, 'again', 1) end
  -- It has been waited for already, and does not wait again behind those that came later.
  redis.call('HSETNX', key.job .. run, 'asked_priority', priority)
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
