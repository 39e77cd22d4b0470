-- Queues a failed job again, under its id. Given: `id`, its `message` and `priority`, `lives`, `max_depth` of the queue.
-- Returns 'published' and what is read of it; 'not failed'; 'full' as for submissions; 'unknown' and 'gone' as read.

local id = given.id
local known = read(id)[1]
if known ~= 'job' then return {known} end
local listed, task = fields(id, 'listed', 'task')
if listed ~= 'failed' then return {'not failed'} end
local depth, interval = backlog(task)
if depth >= given.max_depth then return {'full', depth, interval} end
-- First what a full Redis refuses.
redis.call('HSET', key.job .. id, 'priority', given.priority)
redis.call('HSET', key.job .. id, 'crashes', 0, 'retries', 0, 'updated_at', now)
redis.call('HDEL', key.job .. id, 'finished_at', 'started_at', 'over', 'over_at', 'run_id', 'digest')
redis.call('DEL', key.meta .. id)
live_until(id, now + lives.open)
list(id, 'pending')
publish(id, given.message)
announce(id, 'PENDING')
return {'published', read(id)}
