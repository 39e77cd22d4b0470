-- Renews the leases of what a worker holds: they say that it lives, and not whose a run is. Given: `held`, a list of a
-- `run` and the `token` of the process that runs it, none if its message only waits in the worker. Returns, for each,
-- whether to go on: 'mine', 'held' by another, 'cancelled', 'ended' or 'gone'.

local function renew(run, token)
  local found = record(run)
  if not found.task then return 'gone' end
  if found.over then return 'ended' end
  if not token then
    redis.call('ZADD', key.leases, text(now + LEASE_TTL), run)
    return 'mine'
  end
  if not found.process and waits(run) and redis.call('ZSCORE', key.leases, run) then
    -- A process has the message and has not come to start it. One that has lost its run hears the same until another
    -- starts it, and can do nothing with it.
    redis.call('ZADD', key.leases, text(now + LEASE_TTL), run)
    return 'mine'
  end
  if found.process ~= token then return 'held' end
  redis.call('ZADD', key.leases, text(now + LEASE_TTL), run)
  if found.cancel_at then return 'cancelled' end
  if not wanted(run) then return 'gone' end
  return 'mine'
end

local verdicts = {}
for place, one in ipairs(given.held) do verdicts[place] = renew(one.run, one.token) end
return verdicts
