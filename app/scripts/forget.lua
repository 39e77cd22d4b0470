-- Takes jobs whose time is over, and whose files have gone, out of every index. Given: `ids`. The end of a run that was
-- asked to end brings its job here again.

for _, id in ipairs(given.ids) do
  local run, cancel_at, over = fields(id, 'run_id', 'cancel_at', 'over')
  if run then redis.call('SREM', key.followers .. run, id) end
  if over or not cancel_at then unhold(id) end
  list(id, nil)
  redis.call('ZREM', key.expiring, id)
end
