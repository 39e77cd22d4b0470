-- Reads jobs at one moment. Given: `ids`. Returns what is read of each.

local said = {}
for place, id in ipairs(given.ids) do said[place] = read(id) end
return said
