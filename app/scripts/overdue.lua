-- Runs that have waited too long for their first start. Given: the `lanes`, each a `task` and a `priority`, and the
-- `longest` wait in ms. Returns at most 100 ids a lane. The lowest numbers have waited longest.

local overdue = {}
for _, lane in ipairs(given.lanes) do
  for _, run in ipairs(redis.call('ZRANGE', waiting_key(lane.task, lane.priority), 0, 99)) do
    local since = fields(run, 'waiting_since')
    if since and now - since > given.longest then overdue[#overdue + 1] = run end
  end
end
return overdue
