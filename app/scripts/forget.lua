-- Takes jobs whose time is over, and whose files have gone, out of every index. Given: `ids`.

for _, id in ipairs(given.ids) do
  local run = fields(id, 'run_id')
  if run then redis.call('SREM', key.followers .. run, id) end
  unhold(id)
  list(id, nil)
  redis.call('ZREM', key.expiring, id)
end
