-- What Lua's own library does in one instruction, whatever the size: here it is counted step by step.
local floor = math.floor
local function less(a, b) return a < b end

local function check(t, name)
  if type(t) ~= "table" then error("bad argument #1 to '" .. name .. "' (table expected, got " .. type(t) .. ")", 3) end
  return #t
end

function table.insert(t, ...)
  local n, count = check(t, "insert"), select("#", ...)
  if count == 1 then
    t[n + 1] = (...)
    return
  end
  if count ~= 2 then error("wrong number of arguments to 'insert'", 2) end
  local at, value = ...
  if at < 1 or at > n + 1 then error("bad argument #2 to 'insert' (position out of bounds)", 2) end
  for i = n, at, -1 do t[i + 1] = t[i] end
  t[at] = value
end

function table.remove(t, at)
  local n = check(t, "remove")
  if at == nil then at = n end
  if n + 1 == at then
    local value = t[at]
    t[at] = nil
    return value
  end
  if n == 0 and at == 0 then return t[at] end
  if at < 1 or at > n + 1 then error("bad argument #2 to 'remove' (position out of bounds)", 2) end
  local value = t[at]
  for i = at, n - 1 do t[i] = t[i + 1] end
  t[n] = nil
  return value
end

function table.move(from, first, last, at, to)
  to = to or from
  if last >= first then
    if at > last or at <= first or to ~= from then
      for i = 0, last - first do to[at + i] = from[first + i] end
    else
      for i = last - first, 0, -1 do to[at + i] = from[first + i] end
    end
  end
  return to
end

local function sift(t, before, root, last)
  while true do
    local child = root * 2
    if child > last then return end
    if child < last and before(t[child], t[child + 1]) then child = child + 1 end
    if not before(t[root], t[child]) then return end
    t[root], t[child] = t[child], t[root]
    root = child
  end
end

function table.sort(t, before)
  local n = check(t, "sort")
  before = before or less
  for root = floor(n / 2), 1, -1 do sift(t, before, root, n) end
  for last = n, 2, -1 do
    t[1], t[last] = t[last], t[1]
    sift(t, before, 1, last - 1)
  end
end
