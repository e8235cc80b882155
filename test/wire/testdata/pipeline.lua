-- wrk sends ten requests at once.
init = function(args)
  wrk.headers["Host"] = "shop.web"
  local r = {}
  for i = 1, 10 do
    r[i] = wrk.format(i % 3 == 0 and "POST" or "GET", "/" .. i, nil, i % 3 == 0 and string.rep("x", i * 100) or nil)
  end
  all = table.concat(r)
end

request = function() return all end
