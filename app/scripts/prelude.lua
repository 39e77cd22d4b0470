-- What all scripts share; each is given what it needs of this. A run has the id of the job that began it, and lives in
-- that job's record; jobs that joined it follow. A job that left its run to its followers says so in `left`, and the
-- record goes on for the run alone. `process` is the token of the process that runs it: the run is that one's alone, from
-- its start until it ends, is put aside or published again. Its lease says only that its worker lives; one whose lease
-- has run out is published again.
--
-- Blank lines part blocks: a script is given those whose names it uses, whole. So none stands inside a function, and each
-- block stands below what it needs.

local given = cjson.decode(ARGV[1])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
-- How long an open job (and what it needs of that from a start on), a result and a tombstone live, in ms; for scripts
-- that are told.
local lives = given.lives

local function announce(id, word)
  redis.call('PUBLISH', key.change .. id, word)
end

-- Records

local records = {}
local moments = {}

-- The record of a job. It is read once; what is assigned to it is written when the script saves, all at once: numbers are
-- whole, and false takes a field away.
local function record(id)
  local known = records[id]
  if not known then
    local said, fields = redis.call('HGETALL', key.job .. id), {}
    for place = 1, #said, 2 do fields[said[place]] = said[place + 1] end
    known = setmetatable({}, {__index = fields, said = said})
    records[id] = known
  end
  return known
end

-- A field as it is written. Redis would write a number as one that may have a fraction, which takes long; the same few
-- moments are written many times.
local texts = {}
local function text(value)
  local known = texts[value]
  if not known then
    known = type(value) == 'number' and string.format('%d', value) or value
    texts[value] = known
  end
  return known
end

-- Keeps a record and the files it names, whoever needs them.
local function keep_until(id, moment)
  moments[id] = moment
end

-- Writes what has changed of the records. A script that changes any does so last.
local function save()
  for id, changes in pairs(records) do
    local before, set, last, gone = getmetatable(changes).__index, {}, 0, {}
    for name, value in pairs(changes) do
      if value then
        set[last + 1], set[last + 2] = name, text(value)
        last = last + 2
      elseif before[name] then
        gone[#gone + 1] = name
      end
    end
    if last > 0 then redis.call('HSET', key.job .. id, unpack(set)) end
    if gone[1] then redis.call('HDEL', key.job .. id, unpack(gone)) end
  end
  for id, moment in pairs(moments) do
    redis.call('PEXPIREAT', key.job .. id, text(moment + lives.tombstone))
    redis.call('ZADD', key.expiring, text(moment), id)
  end
end

-- All of a record, names and values in turn, as it will be saved; with `instead`, which is used up, in place of some of
-- it. A name that comes again counts the second time.
local function flat(id, instead)
  local changes = record(id)
  local before = getmetatable(changes)
  if not instead and next(changes) == nil then return before.said end
  local shown = instead or changes
  if instead then
    for name, value in pairs(changes) do
      if instead[name] == nil then instead[name] = value end
    end
  end
  local said, gone = {unpack(before.said)}, {}
  for name, value in pairs(shown) do
    if value then
      local last = #said
      said[last + 1], said[last + 2] = name, text(value)
    elseif before.__index[name] then
      gone[#gone + 1] = name
    end
  end
  for _, name in ipairs(gone) do
    for place = #said - 1, 1, -2 do
      if said[place] == name then
        table.remove(said, place)
        table.remove(said, place)
      end
    end
  end
  return said
end

-- Queues and their lanes

local function waiting_key(task, priority)
  return key.waiting .. task .. ':' .. priority
end

local function lane_key(task, priority)
  return priority == HIGH and task or task .. key.lane_separator .. priority
end

-- What is known of lanes: names are of a queue, a priority and a field, or of a queue, `all` and a field.
local function lane_fields(...)
  return unpack(redis.call('HMGET', key.lanes, ...))
end

-- What to say if the lanes of a queue have no room for so many `more` runs: 'full', how many wait there, and ms from one
-- start to the next, -1 where that is not known. A lane has its say by what waits there: the pace of one that is empty
-- may be an old one. If there is room, nothing, and how many wait in each lane, by its priority.
local function refusal(task, more)
  local waiting, depth = {}, 0
  for _, priority in ipairs(PRIORITIES) do
    waiting[priority] = redis.call('ZCARD', waiting_key(task, priority))
    depth = depth + waiting[priority]
  end
  if depth + more <= given.max_depth then return nil, waiting end
  local paced, drain = 0, 0
  for _, priority in ipairs(PRIORITIES) do
    local interval = lane_fields(task .. ':' .. priority .. ':interval')
    if interval then paced, drain = paced + waiting[priority], drain + waiting[priority] * interval end
  end
  return {'full', depth, paced > 0 and math.floor(drain / paced) or -1}
end

-- Puts a run's message at the end of its lane, under the lane's next number.
local function publish(id, message)
  local run = record(id)
  run.number = redis.call('HINCRBY', key.lanes, run.task .. ':' .. run.priority .. ':last', '1')
  run.waiting_since = now
  redis.call('ZADD', waiting_key(run.task, run.priority), text(run.number), id)
  redis.call('LPUSH', lane_key(run.task, run.priority), message)
end

local function waits(id)
  local run = record(id)
  return run.task and redis.call('ZSCORE', waiting_key(run.task, run.priority), id)
end

-- Takes a run out of whatever holds it; a message of it that is still there finds nothing to start. One that a process
-- has neither waits nor is put aside.
local function unhold(id)
  local run = record(id)
  if not run.process then
    if run.task then redis.call('ZREM', waiting_key(run.task, run.priority), id) end
    redis.call('ZREM', key.retries, id)
  end
  redis.call('ZREM', key.leases, id)
  run.process = false
end

-- Jobs

-- What a list holds of a job: texts that sort by submission.
local function member_of(job, id)
  return string.format('%013d:%s', job.submitted_at, id)
end

local function job_of(member)
  return string.sub(member, 15)
end

-- Lists a job under a status, and no longer under the one before; under none, when there is none.
local function list(id, status)
  local job = record(id)
  if not job.task or job.listed == status then return end
  local member, lists = member_of(job, id), key.listed .. job.task .. ':'
  if status then redis.call('ZADD', lists .. status, '0', member) end
  if job.listed then redis.call('ZREM', lists .. job.listed, member) end
  if job.dead then redis.call('ZREM', lists .. key.dead, member) end
  job.listed, job.dead = status or false, false
end

local function list_as_dead(id)
  local job = record(id)
  redis.call('ZADD', key.listed .. job.task .. ':' .. key.dead, '0', member_of(job, id))
  job.dead = 1
end

-- Keeps a job that somebody needs.
local function live_until(id, moment)
  record(id).expires_at = moment
  keep_until(id, moment)
end

local STATUS = {SUCCESS = 'completed', FAILURE = 'failed', REVOKED = 'cancelled'}

-- The end of a job as who waits for it is told: with what `read` would say then, so that nobody has to ask; not where it
-- is long, for all processes of the API hear it. What is JSON already comes on a line of its own.
local MAX_TOLD = 16384
local function told(id, state, value)
  if #value > MAX_TOLD then return state end
  return state .. ' ' .. cjson.encode({'job', flat(id), '', -1, -1, -1, now}) .. '\n' .. value
end

-- Ends one job, with a value as Celery stores it; `by_itself` if its run is its own, and not one that it follows.
local function end_job(id, state, value, by_itself)
  local job = record(id)
  live_until(id, now + lives.result)
  job.updated_at, job.finished_at, job.retry_at = now, now, false
  redis.call('SET', key.meta .. id, value, 'PXAT', text(now + lives.result))
  list(id, STATUS[state])
  -- What is being erased is shown to nobody any more.
  announce(id, by_itself and not given.erase and told(id, state, value) or state)
end

-- Runs

-- Whether a job's time is not over. Of very many it is asked, and of most nothing else is needed.
local function is_there(id)
  local expires_at = records[id] and records[id].expires_at or redis.call('HGET', key.job .. id, 'expires_at')
  return expires_at and tonumber(expires_at) > now
end

-- Whether a run's own job wants it.
local function wants_itself(id)
  local run = record(id)
  return run.expires_at and tonumber(run.expires_at) > now and not run.left
end

-- The jobs that share a run. Most have none, and their records say so.
local function followers_of(run)
  return record(run).followed and redis.call('SMEMBERS', key.followers .. run) or {}
end

-- The jobs that a run is for: its own unless it has left, and its followers; not those whose time is over. And whether it
-- has any followers.
local function subscribers(run)
  local ids, followers = {}, followers_of(run)
  if wants_itself(run) then ids[1] = run end
  for _, id in ipairs(followers) do
    if is_there(id) then ids[#ids + 1] = id end
  end
  return ids, #followers > 0
end

-- Whether anybody still wants what a run gives. The first who does is enough: there may be very many.
local function wanted(run)
  if wants_itself(run) then return true end
  for _, id in ipairs(followers_of(run)) do
    if is_there(id) then return true end
  end
  return false
end

-- Keeps the record of a run, and the upload that it names.
local function record_until(run, moment)
  if record(run).left then keep_until(run, moment) else live_until(run, moment) end
end

-- Whether a run is the one that answers what it stands for.
local function is_the_answer(run)
  local digest = record(run).digest
  return digest and redis.call('GET', key.same .. digest) == run
end

-- Keeps a run and its jobs, and what else is there for them. Returns the jobs. A run of no others that is kept so long
-- already is spared.
local function run_until(run, moment)
  local ids, is_followed = subscribers(run)
  if ids[1] == run and not is_followed and tonumber(record(run).expires_at) == moment then return ids end
  for _, id in ipairs(ids) do
    if id ~= run then live_until(id, moment) end
  end
  record_until(run, moment)
  if is_followed then redis.call('PEXPIREAT', key.followers .. run, text(moment)) end
  if is_the_answer(run) then redis.call('PEXPIREAT', key.same .. record(run).digest, text(moment)) end
  return ids
end

-- Keeps, with a job that ends, what it showed of its run while that went on: how often, and when, that was started.
local function keep_starts(id, run)
  local job = record(id)
  job.attempts = run.attempts or 0
  if run.started_at then job.started_at = run.started_at end
end

-- Ends a run and every job that it is for, as `dead` if it killed its processes. Its answer is for later jobs too, unless
-- it is `unlike` what they ask for.
local function end_run(id, state, value, how)
  local run, dead, unlike = record(id), how and how.dead, how and how.unlike
  unhold(id)
  run.over, run.over_at = state, now
  local ids, is_followed = subscribers(id)
  for _, one in ipairs(ids) do
    if one ~= id then keep_starts(one, run) end
    end_job(one, state, value, one == id)
    if dead then list_as_dead(one) end
  end
  if is_followed then redis.call('DEL', key.followers .. id) end
  if run.left then
    -- Its own answer has been given: what was kept for the run goes, or stays for jobs that may have the same answer.
    keep_until(id, math.max(now, tonumber(run.expires_at)))
    if run.left == 'ERASED' then
      redis.call('DEL', key.meta .. id)
      run.options = false
    else
      redis.call('SET', key.meta .. id, value, 'PXAT', text(now + lives.result))
    end
  end
  if is_the_answer(id) then
    if state == 'SUCCESS' and run.left ~= 'ERASED' and not unlike then
      redis.call('PEXPIREAT', key.same .. run.digest, text(now + lives.result))
    else
      redis.call('DEL', key.same .. run.digest)
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
local function stop_run(id)
  local run = record(id)
  if run.process then
    run.cancel_at = now
    return false
  end
  end_run(id, 'REVOKED', revoked(id))
  return true
end

-- What the record of a job says that left its run: not what has become of the run since.
local function as_it_left(id)
  local job = record(id)
  return flat(id, {
    updated_at = job.finished_at,
    attempts = job.left_attempts,
    started_at = job.left_started_at or false,
    retry_at = false,
  })
end

-- While a job follows, it shows how the run goes.
local function as_it_follows(id, run)
  local shown = {}
  for _, name in ipairs({'attempts', 'started_at', 'retry_at', 'updated_at'}) do shown[name] = record(run)[name] end
  return flat(id, shown)
end

-- What is read of a job whose run waits, with so many `ahead` of it on its lane, and of `high` priority.
local function as_it_waits(id, said, ahead, high)
  local task, priority = record(id).task, record(id).priority
  local duration, interval, high_interval =
    lane_fields(task .. ':all:duration', task .. ':' .. priority .. ':interval', task .. ':' .. HIGH .. ':interval')
  duration = tonumber(duration or -1)
  interval = tonumber(interval or duration)
  local wait = interval < 0 and -1 or (ahead + 0.5) * interval
  if priority ~= HIGH then
    ahead = ahead + high
    if wait >= 0 then wait = wait + high * tonumber(high_interval or interval) end
  end
  return {'job', said, '', ahead, math.floor(wait), duration, now}
end

-- What a client may know of a job: 'unknown', 'gone', or 'job' with its fields, its state as Celery stores it, how many
-- jobs are ahead of it, ms until it starts, ms that jobs of its kind run, and the time. -1 and '' are for none.
local function read(id)
  local job = record(id)
  if not job.expires_at then return {'unknown'} end
  if tonumber(job.expires_at) <= now then return {'gone'} end
  local run = not job.finished_at and job.run_id or id
  local meta = job.left and revoked(id) or redis.call('GET', key.meta .. run)
  if not meta and job.finished_at then return {'gone'} end
  local said = job.left and as_it_left(id) or run ~= id and as_it_follows(id, run) or flat(id)
  local task, priority = job.task, record(run).priority
  if meta then return {'job', said, meta, -1, -1, tonumber(lane_fields(task .. ':all:duration') or -1), now} end
  local ahead = redis.call('ZRANK', waiting_key(task, priority), run) or 0
  return as_it_waits(run, said, ahead, priority ~= HIGH and redis.call('ZCARD', waiting_key(task, HIGH)) or 0)
end
