-- Runs that have waited too long for their first start. Given: the `lanes`, each a `task` and a `priority`, and the
-- `longest` wait in ms. Returns at most 100 ids a lane. The lowest numbers have waited longest; those whose records have
-- vanished, and those that have been started before, are passed over, so many of them at a time.

local AT_ONCE = 100
local MOST_PASSED = 1000

local overdue = {}
for _, lane in ipairs(given.lanes) do
  local looked_at = 0
  for _, run in ipairs(redis.call('ZRANGE', waiting_key(lane.task, lane.priority), 0, AT_ONCE + MOST_PASSED - 1)) do
    local task, since = fields(run, 'task', 'waiting_since')
    if not task then redis.call('ZREM', waiting_key(lane.task, lane.priority), run) end
    if since then
      looked_at = looked_at + 1
      if now - since > given.longest then overdue[#overdue + 1] = run end
    end
    if looked_at == AT_ONCE then break end
  end
end
return overdue
