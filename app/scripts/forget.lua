-- Takes jobs whose time is over, and whose files have gone, out of every index. Given: `ids`.

for _, id in ipairs(given.ids) do
  local run = fields(id, 'run_id')
  if run then redis.call('SREM', key.followers .. run, id) end
  -- One that runs still is held until it has noticed, or is killed.
  local cancel_at, over = fields(id, 'cancel_at', 'over')
  if over or not cancel_at then unhold(id) end
  list(id, nil)
  redis.call('ZREM', key.expiring, id)
end
