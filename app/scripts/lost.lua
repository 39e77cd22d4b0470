-- Finds runs that nobody holds any more. Given: the `lanes`, each a `task` and a `priority`. Returns at most 100 ids.
--
-- A worker takes the messages of a lane in the order of their numbers. A run whose number the lane has passed, or whose
-- lane is empty, should have been taken: if no worker says that it holds it, it is given a lease in their place. Runs
-- whose lease runs out are lost.

for _, lane in ipairs(given.lanes) do
  local waiting = waiting_key(lane.task, lane.priority)
  local passed = '(' .. (lane_fields(lane.task .. ':' .. lane.priority .. ':started') or 0)
  if redis.call('LLEN', lane_key(lane.task, lane.priority)) == 0 then passed = '+inf' end
  for _, run in ipairs(redis.call('ZRANGEBYSCORE', waiting, '-inf', passed, 'LIMIT', 0, 1000)) do
    if redis.call('EXISTS', key.job .. run) == 0 then
      redis.call('ZREM', waiting, run)
    else
      redis.call('ZADD', key.leases, 'NX', now + LEASE_TTL, run)
    end
  end
end
return redis.call('ZRANGEBYSCORE', key.leases, '-inf', now, 'LIMIT', 0, 100)
