-- Runs that have waited too long for their first start. Given: the `lanes`, each a `task` and a `priority`, and the
-- `longest` wait in ms. Returns at most 100 ids a lane. The lowest numbers have waited longest; those whose records have
-- vanished are in the way.

local overdue = {}
for _, lane in ipairs(given.lanes) do
  for _, run in ipairs(redis.call('ZRANGE', waiting_key(lane.task, lane.priority), 0, 99)) do
    local task, since = fields(run, 'task', 'waiting_since')
    if not task then redis.call('ZREM', waiting_key(lane.task, lane.priority), run) end
    if since and now - since > given.longest then overdue[#overdue + 1] = run end
  end
end
return overdue
