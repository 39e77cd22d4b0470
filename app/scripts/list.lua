-- Reads one page of jobs by submission. Given: `indexes` to merge, how many at most (`limit`), whether from the newest on
-- (`newest_first`), and the `place` of the job to begin with, if not at the end. Returns the places of the jobs that
-- come after the page and before it, '' where there are none, and what is read of those on it.

-- A job that has expired is listed until somebody takes its files away. So many of them are passed over at a time.
local MOST_PASSED = 1000

-- Up to `count` members of all indexes, from a bound on.
local function merged(bound, newest_first, count)
  local members = {}
  for _, index in ipairs(given.indexes) do
    local some
    if newest_first then
      some = redis.call('ZREVRANGEBYLEX', index, bound or '+', '-', 'LIMIT', 0, count)
    else
      some = redis.call('ZRANGEBYLEX', index, bound or '-', '+', 'LIMIT', 0, count)
    end
    for _, member in ipairs(some) do members[#members + 1] = member end
  end
  table.sort(members, function(one, other)
    if newest_first then return one > other end
    return one < other
  end)
  return members
end

-- It may be that nothing can be written: then it is passed over again.
local function unlist(member)
  for _, index in ipairs(given.indexes) do redis.pcall('ZREM', index, member) end
end

-- Up to `count` jobs that are still there, from a bound on, and the place to go on from if there are more to look at.
local function walk(bound, newest_first, count)
  local places, said, passed = {}, {}, 0
  while #places < count do
    local lacking = count - #places
    local members = merged(bound, newest_first, lacking)
    for place = 1, math.min(#members, lacking) do
      local member = members[place]
      local one = read(job_of(member))
      if one[1] == 'job' then
        places[#places + 1], said[#said + 1] = member, one
      else
        unlist(member)
        passed = passed + 1
      end
      bound = '(' .. member
    end
    if #members < lacking then return places, said end
    if passed >= MOST_PASSED then return places, said, merged(bound, newest_first, 1)[1] end
  end
  return places, said
end

local begin = given.place and '[' .. given.place
local places, said, after = walk(begin, given.newest_first, given.limit + 1)
if #places > given.limit then
  after = places[#places]
  said[#said] = nil
end
local before = ''
if given.place then
  local found, _, rest = walk('(' .. (places[1] or given.place), not given.newest_first, 1)
  before = found[1] or rest or ''
end
return {after or '', before, unpack(said)}
