-- Accepts jobs, all or none. Given: `jobs`, each its `fields`, its `message` and, if it may share a run, a `digest`; all
-- of one `task`; `max_depth` of its queue; perhaps a `batch` (`key`, `text`, `ttl`) and a `claim` (`key`, `token`,
-- `answer`, `ttl`). Returns 'accepted' and what is read of each job; 'claimed' and by what; or 'full', with the depth
-- and ms between starts.

local MAX_FOLLOWERS = 1000
local claim, task = given.claim, given.task

if given.jobs[1] and redis.call('EXISTS', key.job .. given.jobs[1].fields.job_id) == 1 then
  -- Accepted before, and the answer was lost on its way.
  local said = {}
  for place, job in ipairs(given.jobs) do said[place] = read(job.fields.job_id) end
  return {'accepted', unpack(said)}
end
if claim then
  local held = redis.call('GET', claim.key)
  if held and held ~= claim.token then return {'claimed', held} end
end

-- The run that a job can have its answer of, and whether it has ended.
local function joinable(job)
  local run = redis.call('GET', key.same .. job.digest)
  if not run then return end
  local over, cancel_at, priority = fields(run, 'over', 'cancel_at', 'priority')
  if over == 'SUCCESS' and redis.call('EXISTS', key.meta .. run) == 1 then return run, true end
  if over or cancel_at or not wanted(run) then return end
  -- A job that is to be served before others does not wait among them.
  if tonumber(priority) > tonumber(job.fields.priority) and waits(run) then return end
  if redis.call('SCARD', key.followers .. run) >= MAX_FOLLOWERS then return end
  return run, false
end

local plans, begun, queued = {}, {}, 0
for place, job in ipairs(given.jobs) do
  local run, ended
  if job.digest then
    run = begun[job.digest]
    if not run then run, ended = joinable(job) end
  end
  plans[place] = {run = run, ended = ended}
  if not run then
    queued = queued + 1
    if job.digest then begun[job.digest] = job.fields.job_id end
  end
end

local depth, interval = backlog(task)
if queued > 0 and depth + queued > given.max_depth then return {'full', depth, interval} end

local function start_run(id, job)
  publish(id, job.message)
  if job.digest then
    redis.call('HSET', key.job .. id, 'digest', job.digest, 'model_is', job.model_is)
    redis.call('SET', key.same .. job.digest, id, 'PXAT', now + lives.open)
  end
end

local function follow(id, run)
  redis.call('HSET', key.job .. id, 'run_id', run)
  redis.call('SADD', key.followers .. run, id)
  -- What belongs to the run stays as long as the last that joined may need it.
  local moment = math.max(now + lives.open, tonumber(redis.call('ZSCORE', key.expiring, run) or 0))
  redis.call('PEXPIREAT', key.followers .. run, moment)
  redis.call('PEXPIREAT', key.meta .. run, moment)
  record_until(run, moment)
end

local said = {}
for place, job in ipairs(given.jobs) do
  local id, plan = job.fields.job_id, plans[place]
  local flat = {'submitted_at', now, 'updated_at', now}
  for name, value in pairs(job.fields) do
    flat[#flat + 1] = name
    flat[#flat + 1] = value
  end
  live_until(id, now + lives.open, unpack(flat))
  list(id, 'pending')
  if plan.ended then
    local submitted_at, over_at = fields(plan.run, 'submitted_at', 'over_at')
    redis.call('HSET', key.job .. id, 'cached', 1, 'total_ms', over_at - submitted_at)
    end_job(id, 'SUCCESS', redis.call('GET', key.meta .. plan.run))
  elseif plan.run then
    follow(id, plan.run)
    if redis.call('EXISTS', key.meta .. plan.run) == 1 then list(id, 'processing') end
  else
    start_run(id, job)
  end
  said[place] = read(id)
end

if given.batch then redis.call('SET', given.batch.key, given.batch.text, 'PX', given.batch.ttl) end
if claim then redis.call('SET', claim.key, claim.answer, 'PX', claim.ttl) end
return {'accepted', unpack(said)}
