-- Runs that have waited too long for a start. Given: the `lanes`, each a `task` and a `priority`, and the `longest` wait in
-- ms. Returns at most 100 ids a lane. The lowest numbers have waited longest, so the first that has time left ends the
-- search.

local overdue = {}
for _, lane in ipairs(given.lanes) do
  local waiting = waiting_key(lane.task, lane.priority)
  for _, run in ipairs(redis.call('ZRANGE', waiting, 0, 99)) do
    local found = record(run)
    if not found.task then
      redis.call('ZREM', waiting, run)
    elseif now - (found.waiting_since or now) > given.longest then
      overdue[#overdue + 1] = run
    else
      break
    end
  end
end
return overdue
