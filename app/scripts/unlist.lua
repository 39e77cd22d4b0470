-- Takes jobs out of the lists whose record has gone before they were forgotten, as happens when no worker does the chores
-- for long. Given: the `indexes`. Some jobs of each are looked at, drawn by lot, and more where many of them have gone.
-- Returns how many were taken out.

local AT_ONCE, MOST_ROUNDS = 20, 50
local taken_out = 0

for _, index in ipairs(given.indexes) do
  for _ = 1, MOST_ROUNDS do
    local gone = 0
    for _, member in ipairs(redis.call('ZRANDMEMBER', index, AT_ONCE)) do
      if redis.call('EXISTS', key.job .. string.sub(member, 15)) == 0 then
        gone = gone + redis.call('ZREM', index, member)
      end
    end
    taken_out = taken_out + gone
    if gone < AT_ONCE / 4 then break end
  end
end
return taken_out
