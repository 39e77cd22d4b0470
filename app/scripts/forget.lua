-- Takes jobs whose time is over, and whose files have gone, out of every index. Given: `ids`. The end of a run that was
-- asked to end brings its job here again.

for _, id in ipairs(given.ids) do
  local job = record(id)
  if job.run_id then redis.call('SREM', key.followers .. job.run_id, id) end
  if job.over or not job.cancel_at then unhold(id) end
  list(id, nil)
  redis.call('ZREM', key.expiring, id)
end
save()
