-- Queues a failed job again, under its id. Given: `id`, its `message` and `priority`, `lives`, `max_depth` of the queue.
-- Returns 'published' and what is read of it; 'not failed'; 'full' as for submissions; 'unknown' and 'gone' as read.

local id = given.id
local known = read(id)[1]
if known ~= 'job' then return {known} end
local job = record(id)
if job.listed ~= 'failed' then return {'not failed'} end
local full = refusal(job.task, 1)
if full then return full end
-- First what a full Redis refuses.
list(id, 'pending')
redis.call('DEL', key.meta .. id)
job.priority, job.crashes, job.retries, job.updated_at = tostring(given.priority), 0, 0, now
for _, name in ipairs({'finished_at', 'started_at', 'over', 'over_at', 'run_id', 'digest'}) do job[name] = false end
live_until(id, now + lives.open)
publish(id, given.message)
announce(id, 'PENDING')
save()
return {'published', read(id)}
