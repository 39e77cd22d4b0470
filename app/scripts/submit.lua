-- Accepts jobs, all or none. Given: `jobs`, each its `fields` and, if it may share a run, a `digest`; all of one `task`;
-- `max_depth` of its queue; perhaps a `batch` (`key`, `text`, `ttl`) and a `claim` (`key`, `token`, `answer`, `ttl`); and as
-- texts the messages of the jobs. Returns 'accepted' and what is read of each job; 'claimed' and by what; or 'full', with
-- the depth and ms between starts.

local MAX_FOLLOWERS = 1000
local claim, task = given.claim, given.task

if given.jobs[1] and record(given.jobs[1].fields.job_id).task then
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
  local found = record(run)
  if found.over == 'SUCCESS' and redis.call('EXISTS', key.meta .. run) == 1 then return run, true end
  if found.over or found.cancel_at or not wanted(run) then return end
  -- A job that is to be served before others does not wait among them.
  if tonumber(found.priority) > tonumber(job.fields.priority) and waits(run) then return end
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

-- How many runs wait in each lane, by its priority.
local waiting
if queued > 0 then
  local full
  full, waiting = refusal(task, queued)
  if full then return full end
end

-- Returns how many wait before it in its lane.
local function start_run(id, job, message)
  local priority = job.fields.priority
  local ahead = waiting[priority]
  waiting[priority] = ahead + 1
  publish(id, message)
  if job.digest then
    local run = record(id)
    run.digest, run.model_is = job.digest, job.model_is
    redis.call('SET', key.same .. job.digest, id, 'PXAT', text(now + lives.open))
  end
  return ahead
end

local function follow(id, run)
  record(id).run_id = run
  redis.call('SADD', key.followers .. run, id)
  -- What belongs to the run stays as long as the last that joined may need it.
  local moment = math.max(now + lives.open, tonumber(redis.call('ZSCORE', key.expiring, run) or 0))
  redis.call('PEXPIREAT', key.followers .. run, text(moment))
  redis.call('PEXPIREAT', key.meta .. run, text(moment))
  record(run).followed = 1
  record_until(run, moment)
end

for place, job in ipairs(given.jobs) do
  local id, plan = job.fields.job_id, plans[place]
  local new = record(id)
  for name, value in pairs(job.fields) do new[name] = value end
  new.submitted_at, new.updated_at = now, now
  live_until(id, now + lives.open)
  list(id, 'pending')
  if plan.ended then
    local run = record(plan.run)
    new.cached, new.total_ms = 1, run.over_at - run.submitted_at
    end_job(id, 'SUCCESS', redis.call('GET', key.meta .. plan.run))
  elseif plan.run then
    follow(id, plan.run)
    if redis.call('EXISTS', key.meta .. plan.run) == 1 then list(id, 'processing') end
  else
    plan.ahead = start_run(id, job, ARGV[place + 1])
  end
end
save()

if given.batch then redis.call('SET', given.batch.key, given.batch.text, 'PX', given.batch.ttl) end
if claim then redis.call('SET', claim.key, claim.answer, 'PX', claim.ttl) end
local said = {}
for place, job in ipairs(given.jobs) do
  local id, ahead = job.fields.job_id, plans[place].ahead
  said[place] = ahead and as_it_waits(id, flat(id), ahead, waiting[HIGH]) or read(id)
end
return {'accepted', unpack(said)}
