-- Cancels a job, or erases it. Given: `id`, `lives`; `erase` to erase it. It leaves its run, which ends with the last job
-- that wants it. Returns 'cancelled', 'requested' where the run has to notice first, or 'ended' if it had; when erasing,
-- 'erased', or 'kept' where the files are still needed by the run. 'unknown' and 'gone' as read.

local id = given.id
local known = read(id)[1]
if known ~= 'job' then return known end
local job = record(id)
local finished_at = job.finished_at
if finished_at and not given.erase then return 'ended' end

-- The data of the client go at once; what the run needs stays as long as the run. 0 is long ago by every clock.
local function erase(run_goes_on)
  list(id, nil)
  if not finished_at or run_goes_on then job.left = 'ERASED' end
  job.expires_at = 0
  job.filename, job.url, job.image, job.sha256 = false, false, false, false
  if not run_goes_on then
    job.options = false
    redis.call('DEL', key.meta .. id)
    -- Still in the index of those whose files must go, in case they cannot be removed now.
    keep_until(id, now)
  end
  announce(id, 'erased')
end

-- Ends the job while its run goes on for others.
local function leave()
  if given.erase then return erase(true) end
  job.left, job.finished_at, job.expires_at = 'REVOKED', now, now + lives.result
  job.left_attempts, job.left_started_at = job.attempts or 0, job.started_at or false
  list(id, 'cancelled')
  announce(id, 'REVOKED')
end

local function go()
  if not finished_at then
    local run = job.run_id or id
    if run ~= id then
      redis.call('SREM', key.followers .. run, id)
      job.run_id = false
      if not given.erase then
        keep_starts(id, record(run))
        end_job(id, 'REVOKED', revoked(id))
      end
      if not wanted(run) then stop_run(run) end
      if not given.erase then return 'cancelled' end
    elseif redis.call('EXISTS', key.followers .. run) == 1 then
      leave()
      return given.erase and 'kept' or 'cancelled'
    elseif not stop_run(run) and not given.erase then
      return 'requested'
    elseif not given.erase then
      return 'cancelled'
    end
  elseif job.left and not job.over then
    -- Cancelled before, and its run still goes on for others.
    erase(true)
    return 'kept'
  end
  erase(false)
  return 'erased'
end

local outcome = go()
save()
return outcome
