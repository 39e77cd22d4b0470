-- Cancels a job, or erases it. Given: `id`, `lives`; `erase` to erase it. It leaves its run, which ends with the last job
-- that wants it. Returns 'cancelled', 'requested' where the run has to notice first, or 'ended' if it had; when erasing,
-- 'erased', or 'kept' where the files are still needed by the run. 'unknown' and 'gone' as read.

local id = given.id
local known = read(id)[1]
if known ~= 'job' then return known end
local finished_at, run_id = fields(id, 'finished_at', 'run_id')
if finished_at and not given.erase then return 'ended' end

-- The data of the client go at once; what the run needs stays as long as the run. 0 is long ago by every clock.
local function erase(run_goes_on)
  list(id, nil)
  redis.call('HSET', key.job .. id, 'expires_at', 0)
  redis.call('HDEL', key.job .. id, 'filename', 'url', 'image', 'sha256')
  if not finished_at or run_goes_on then redis.call('HSET', key.job .. id, 'left', 'ERASED') end
  if not run_goes_on then
    redis.call('HDEL', key.job .. id, 'options')
    redis.call('DEL', key.meta .. id)
    -- Still in the index of those whose files must go, in case they cannot be removed now.
    keep_until(id, now)
  end
  announce(id, 'erased')
end

-- Ends the job while its run goes on for others.
local function leave()
  if given.erase then return erase(true) end
  local attempts, started_at = fields(id, 'attempts', 'started_at')
  redis.call('HSET', key.job .. id, 'left', 'REVOKED', 'finished_at', now, 'expires_at', now + lives.result)
  redis.call('HSET', key.job .. id, 'left_attempts', attempts or 0)
  if started_at then redis.call('HSET', key.job .. id, 'left_started_at', started_at) end
  list(id, 'cancelled')
  announce(id, 'REVOKED')
end

if not finished_at then
  local run = run_id or id
  if run ~= id then
    redis.call('SREM', key.followers .. run, id)
    redis.call('HDEL', key.job .. id, 'run_id')
    if not given.erase then
      keep_starts(id, fields(run, 'attempts', 'started_at'))
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
elseif fields(id, 'left') and not fields(id, 'over') then
  -- Cancelled before, and its run still goes on for others.
  erase(true)
  return 'kept'
end
erase(false)
return 'erased'
