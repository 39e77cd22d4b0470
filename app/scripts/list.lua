-- Reads one page of jobs by submission. Given: `indexes` to merge, how many at most (`limit`), whether from the newest on
-- (`newest_first`), and the `cursor` of the job after which to begin, if not at the end. Returns, for each, its cursor and
-- what is read of it.

local members = {}
for _, index in ipairs(given.indexes) do
  local name, some = key.listed .. index, nil
  if given.newest_first then
    local from = given.cursor and '(' .. given.cursor or '+'
    some = redis.call('ZREVRANGEBYLEX', name, from, '-', 'LIMIT', 0, given.limit)
  else
    local from = given.cursor and '(' .. given.cursor or '-'
    some = redis.call('ZRANGEBYLEX', name, from, '+', 'LIMIT', 0, given.limit)
  end
  for _, member in ipairs(some) do members[#members + 1] = member end
end
table.sort(members, function(one, other)
  if given.newest_first then return one > other end
  return one < other
end)

local said = {}
for place = 1, math.min(#members, given.limit) do
  said[place] = {members[place], read(job_of(members[place]))}
end
return said
