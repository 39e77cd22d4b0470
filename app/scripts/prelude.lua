-- What all scripts share. A run has the id of the job that began it, and lives in that job's record; jobs that joined
-- it follow. A job that left its run to its followers says so in `left`, and the record goes on for the run alone.
-- `process` is the token of the process that runs it: the run is that one's alone, from its start until it ends, is put
-- aside or published again. Its lease says only that its worker lives; one whose lease has run out is published again.

local given = cjson.decode(ARGV[1])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
-- How long an open job, a result and a tombstone live, in ms; for scripts that are told.
local lives = given.lives
local HIGH = PRIORITIES[1]
local read

local function fields(id, ...)
  return unpack(redis.call('HMGET', key.job .. id, ...))
end

local function announce(id, word)
  redis.call('PUBLISH', key.change .. id, word)
end

-- Queues and their lanes

local function waiting_key(task, priority)
  return key.waiting .. task .. ':' .. priority
end

local function lane_key(task, priority)
  return priority == HIGH and task or task .. key.lane_separator .. priority
end

local function lane_fields(task, priority, ...)
  local names = {}
  for place, name in ipairs({...}) do names[place] = task .. ':' .. priority .. ':' .. name end
  return unpack(redis.call('HMGET', key.lanes, unpack(names)))
end

local function set_lane_fields(task, priority, values)
  local flat = {}
  for name, value in pairs(values) do
    flat[#flat + 1] = task .. ':' .. priority .. ':' .. name
    flat[#flat + 1] = value
  end
  redis.call('HSET', key.lanes, unpack(flat))
end

-- How many runs wait on the lanes of a queue, and ms from one start to the next, -1 where that is not known. A lane has
-- its say by what waits there: the pace of one that is empty may be an old one.
local function backlog(task)
  local depth, paced, drain = 0, 0, 0
  for _, priority in ipairs(PRIORITIES) do
    local waiting = redis.call('ZCARD', waiting_key(task, priority))
    local interval = tonumber(lane_fields(task, priority, 'interval') or -1)
    depth = depth + waiting
    if interval >= 0 then paced, drain = paced + waiting, drain + waiting * interval end
  end
  return depth, paced > 0 and math.floor(drain / paced) or -1
end

-- Puts a run's message at the end of its lane, under the lane's next number.
local function publish(run, message)
  local task, priority = fields(run, 'task', 'priority')
  local number = redis.call('HINCRBY', key.lanes, task .. ':' .. priority .. ':last', 1)
  redis.call('HSET', key.job .. run, 'number', number, 'waiting_since', now)
  redis.call('ZADD', waiting_key(task, priority), number, run)
  redis.call('LPUSH', lane_key(task, priority), message)
end

local function waits(run)
  local task, priority = fields(run, 'task', 'priority')
  return task and redis.call('ZSCORE', waiting_key(task, priority), run)
end

-- Takes a run out of whatever holds it; a message of it that is still there finds nothing to start.
local function unhold(run)
  local task, priority = fields(run, 'task', 'priority')
  if task then redis.call('ZREM', waiting_key(task, priority), run) end
  redis.call('ZREM', key.retries, run)
  redis.call('ZREM', key.leases, run)
  redis.call('HDEL', key.job .. run, 'process')
end

-- Jobs

-- What a list holds of a job: texts that sort by submission.
local function member_of(submitted_at, id)
  return string.format('%013d:%s', submitted_at, id)
end

local function job_of(member)
  return string.sub(member, 15)
end

-- Lists a job under a status, and no longer under the one before; under none, when there is none.
local function list(id, status)
  local task, submitted_at, listed, dead = fields(id, 'task', 'submitted_at', 'listed', 'dead')
  if not task or listed == status then return end
  local member = member_of(submitted_at, id)
  if listed then redis.call('ZREM', key.listed .. task .. ':' .. listed, member) end
  if dead then
    redis.call('ZREM', key.listed .. task .. ':' .. key.dead, member)
    redis.call('HDEL', key.job .. id, 'dead')
  end
  if status then
    redis.call('ZADD', key.listed .. task .. ':' .. status, 0, member)
    redis.call('HSET', key.job .. id, 'listed', status)
  else
    redis.call('HDEL', key.job .. id, 'listed')
  end
end

local function list_as_dead(id)
  local task, submitted_at = fields(id, 'task', 'submitted_at')
  redis.call('ZADD', key.listed .. task .. ':' .. key.dead, 0, member_of(submitted_at, id))
  redis.call('HSET', key.job .. id, 'dead', 1)
end

-- Keeps a record and the files it names, whoever needs them.
local function keep_until(id, moment)
  redis.call('PEXPIREAT', key.job .. id, moment + lives.tombstone)
  redis.call('ZADD', key.expiring, moment, id)
end

-- Keeps a job that somebody needs; what follows are other fields of the record to set.
local function live_until(id, moment, ...)
  redis.call('HSET', key.job .. id, 'expires_at', moment, ...)
  keep_until(id, moment)
end

local STATUS = {SUCCESS = 'completed', FAILURE = 'failed', REVOKED = 'cancelled'}

-- The end of a job as who waits for it is told: with what there is to read then, so that nobody has to; not where it is
-- long, for all processes of the API hear it.
local MAX_TOLD = 16384
local function told(id, state, value)
  return #value <= MAX_TOLD and state .. ' ' .. cjson.encode(read(id)) or state
end

-- Ends one job, with a value as Celery stores it; `by_itself` if its run is its own, and not one that it follows.
local function end_job(id, state, value, by_itself)
  live_until(id, now + lives.result, 'updated_at', now, 'finished_at', now)
  redis.call('HDEL', key.job .. id, 'retry_at')
  redis.call('SET', key.meta .. id, value, 'PXAT', now + lives.result)
  list(id, STATUS[state])
  announce(id, by_itself and told(id, state, value) or state)
end

-- Runs

local function is_there(id)
  local expires_at = fields(id, 'expires_at')
  return expires_at and tonumber(expires_at) > now
end

-- Whether a run's own job wants it.
local function wants_itself(run)
  local expires_at, left = fields(run, 'expires_at', 'left')
  return expires_at and tonumber(expires_at) > now and not left
end

-- The jobs that a run is for: its own unless it has left, and its followers; not those whose time is over.
local function subscribers(run)
  local ids = {}
  if wants_itself(run) then ids[1] = run end
  for _, id in ipairs(redis.call('SMEMBERS', key.followers .. run)) do
    if is_there(id) then ids[#ids + 1] = id end
  end
  return ids
end

-- Whether anybody still wants what a run gives. The first who does is enough: there may be very many.
local function wanted(run)
  if wants_itself(run) then return true end
  for _, id in ipairs(redis.call('SMEMBERS', key.followers .. run)) do
    if is_there(id) then return true end
  end
  return false
end

-- Keeps the record of a run, and the upload that it names.
local function record_until(run, moment)
  if fields(run, 'left') then keep_until(run, moment) else live_until(run, moment) end
end

-- Keeps a run and its jobs, and what else is there for them.
local function run_until(run, moment)
  for _, id in ipairs(subscribers(run)) do
    if id ~= run then live_until(id, moment) end
  end
  record_until(run, moment)
  redis.call('PEXPIREAT', key.followers .. run, moment)
  local digest = fields(run, 'digest')
  if digest and redis.call('GET', key.same .. digest) == run then
    redis.call('PEXPIREAT', key.same .. digest, moment)
  end
end

-- Keeps, with a job that ends, what it showed of its run while that went on: how often, and when, that was started.
local function keep_starts(id, attempts, started_at)
  redis.call('HSET', key.job .. id, 'attempts', attempts or 0)
  if started_at then redis.call('HSET', key.job .. id, 'started_at', started_at) end
end

-- Ends a run and every job that it is for, as `dead` if it killed its processes. Its answer is for later jobs too, unless
-- it is `unlike` what they ask for.
local function end_run(run, state, value, how)
  local dead, unlike = how and how.dead, how and how.unlike
  unhold(run)
  redis.call('HSET', key.job .. run, 'over', state, 'over_at', now)
  local digest, left, expires_at, attempts, started_at =
    fields(run, 'digest', 'left', 'expires_at', 'attempts', 'started_at')
  for _, id in ipairs(subscribers(run)) do
    if id ~= run then keep_starts(id, attempts, started_at) end
    end_job(id, state, value, id == run)
    if dead then list_as_dead(id) end
  end
  redis.call('DEL', key.followers .. run)
  if left then
    -- Its own answer has been given: what was kept for the run goes, or stays for jobs that may have the same answer.
    keep_until(run, math.max(now, tonumber(expires_at)))
    if left == 'ERASED' then
      redis.call('DEL', key.meta .. run)
      redis.call('HDEL', key.job .. run, 'options')
    else
      redis.call('SET', key.meta .. run, value, 'PXAT', now + lives.result)
    end
  end
  if digest and redis.call('GET', key.same .. digest) == run then
    if state == 'SUCCESS' and left ~= 'ERASED' and not unlike then
      redis.call('PEXPIREAT', key.same .. digest, now + lives.result)
    else
      redis.call('DEL', key.same .. digest)
    end
  end
end

-- A cancelled job's state, in the form of Celery's backend.
local function revoked(id)
  return cjson.encode({
    status = 'REVOKED',
    task_id = id,
    traceback = cjson.null,
    result = {exc_type = 'TaskRevokedError', exc_message = {'cancelled'}, exc_module = 'celery.exceptions'},
  })
end

-- Nobody wants a run any more: it is ended where it waits, and asked to end where it runs. True if it has ended.
local function stop_run(run)
  if fields(run, 'process') then
    redis.call('HSET', key.job .. run, 'cancel_at', now)
    return false
  end
  end_run(run, 'REVOKED', revoked(run))
  return true
end

-- What the record of a job says that left its run: not what has become of the run since.
local function as_it_left(id, found)
  local told = {}
  local changed = {attempts = true, started_at = true, retry_at = true, updated_at = true}
  for place = 1, #found, 2 do
    if not changed[found[place]] then
      told[#told + 1] = found[place]
      told[#told + 1] = found[place + 1]
    end
  end
  local finished_at, attempts, started_at = fields(id, 'finished_at', 'left_attempts', 'left_started_at')
  for name, value in pairs({updated_at = finished_at, attempts = attempts, started_at = started_at or nil}) do
    told[#told + 1] = name
    told[#told + 1] = value
  end
  return told
end

-- What a client may know of a job: 'unknown', 'gone', or 'job' with its fields, its state as Celery stores it, how many
-- jobs are ahead of it, ms until it starts, ms that jobs of its kind run, and the time. -1 and '' are for none.
function read(id)
  local found = redis.call('HGETALL', key.job .. id)
  if #found == 0 then return {'unknown'} end
  local task, expires_at, finished_at, run, left =
    fields(id, 'task', 'expires_at', 'finished_at', 'run_id', 'left')
  if tonumber(expires_at) <= now then return {'gone'} end
  local duration = tonumber(lane_fields(task, 'all', 'duration') or -1)
  if left then return {'job', as_it_left(id, found), revoked(id), -1, -1, duration, now} end
  run = not finished_at and run or id
  local meta = redis.call('GET', key.meta .. run)
  if not meta and finished_at then return {'gone'} end
  if run ~= id then
    -- While it follows, it shows how the run goes: a name that comes again counts the second time.
    for _, name in ipairs({'attempts', 'started_at', 'retry_at', 'updated_at'}) do
      local value = fields(run, name)
      if value then
        found[#found + 1] = name
        found[#found + 1] = value
      end
    end
  end
  if meta then return {'job', found, meta, -1, -1, duration, now} end
  local priority = fields(run, 'priority')
  local ahead = redis.call('ZRANK', waiting_key(task, priority), run) or 0
  local interval = tonumber(lane_fields(task, priority, 'interval') or duration)
  local wait = interval < 0 and -1 or (ahead + 0.5) * interval
  if priority ~= HIGH then
    local first = redis.call('ZCARD', waiting_key(task, HIGH))
    ahead = ahead + first
    if wait >= 0 then wait = wait + first * tonumber(lane_fields(task, HIGH, 'interval') or interval) end
  end
  return {'job', found, '', ahead, math.floor(wait), duration, now}
end

