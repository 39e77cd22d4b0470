-- Publishes a run again. Given: `run`, its `message`, `lives`, and `why`: 'due' for another attempt after a passing
-- failure; 'lost', its lease has run out; 'crashed' or 'given back' by the process with this `token`. Crashes are
-- counted; at `max_crashes` the run ends with the state `failure`, and its jobs are listed as dead. Returns what became
-- of it: 'published', 'condemned', 'cancelled', 'ended', 'gone', or 'kept' where it is.

local id, why = given.run, given.why
local run = record(id)
local waiting = waits(id)
local set_aside = redis.call('ZSCORE', key.retries, id)

local function is_as_said()
  if why == 'due' then return redis.call('ZREM', key.retries, id) == 1 end
  if why == 'lost' then
    local lease = redis.call('ZSCORE', key.leases, id)
    return lease and tonumber(lease) <= now
  end
  return not run.process or run.process == given.token
end

-- Who had taken the message has put it back before it went, and it waits its turn.
local function is_on_its_lane()
  local passed = tonumber(lane_fields(run.task .. ':' .. run.priority .. ':started') or 0)
  return waiting and tonumber(run.number) > passed and redis.call('LLEN', lane_key(run.task, run.priority)) > 0
end

local function requeue()
  if not is_as_said() then return 'kept' end
  if run.over or not run.task or not wanted(id) and not run.cancel_at then
    unhold(id)
    return run.task and 'ended' or 'gone'
  end
  if run.cancel_at then
    end_run(id, 'REVOKED', revoked(id))
    return 'cancelled'
  end
  redis.call('ZREM', key.leases, id)

  if why ~= 'due' then
    if set_aside or why == 'lost' and is_on_its_lane() then return 'kept' end
    -- One that waits was not started by who is gone.
    if not waiting and why ~= 'given back' then
      run.crashes = (run.crashes or 0) + 1
      if run.crashes >= given.max_crashes then
        end_run(id, 'FAILURE', given.failure, {dead = true})
        return 'condemned'
      end
    end
    unhold(id)
    if waiting then run.again = 1 end
    -- It has been waited for already, and does not wait again behind those that came later.
    run.asked_priority, run.priority = run.asked_priority or run.priority, HIGH
    redis.call('DEL', key.meta .. id)
    for _, one in ipairs(subscribers(id)) do
      list(one, 'pending')
      announce(one, 'PENDING')
    end
  end
  publish(id, given.message)
  run.updated_at = now
  return 'published'
end

local outcome = requeue()
save()
return outcome
