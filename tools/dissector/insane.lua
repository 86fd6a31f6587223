-- Wireshark and tshark: the frames of insane-rt.
--
--   tshark -X lua_script:tools/dissector/insane.lua -r FILE
--
-- or copy it into Wireshark's folder for personal Lua plugins. It reads
--   - UDP datagrams, on any port: told by magic byte, version, kind and check of the header
--     (where another protocol has the port: -o udp.try_heuristic_first:TRUE), and bundles, several
--     frames in one datagram, of which each is shown;
--   - files of `insane tap` (link type USER0): the same header and a payload, where host,
--     incarnation and source are 0, since a tap is not told them. The channel's name is
--     the frame's interface (frame.interface_name), a loss before it the frame's comment.
--
-- The layouts are those of rt-runtime/wire/src/{data,bundle,link,overlay,reliable}.rs; all numbers are
-- little-endian.

local HEADER = 64
local VERSION = 2

local kinds = { [1] = "data", [2] = "overlay", [3] = "reliable", [4] = "fence" }
local overlay_kinds = { [1] = "heartbeat", [2] = "digest", [5] = "link", [6] = "delta", [7] = "refusal", [8] = "group" }
local group_kinds = { [1] = "probe", [2] = "answer" }
local clocks = { [0] = "none or unnamed", [1] = "monotonic of the source's host", [2] = "TAI", [3] = "unnamed" }
local reliable_kinds = { [1] = "sync", [2] = "ack" }

local insane = Proto("insane", "INSANE runtime frame")

local f = {
    version = ProtoField.uint8("insane.version", "Version"),
    kind = ProtoField.uint8("insane.kind", "Kind", base.DEC, kinds),
    lane = ProtoField.uint8("insane.lane", "Lane", base.DEC, nil, 0x07),
    reliable = ProtoField.bool("insane.flags.reliable", "Reliable", 8, nil, 0x10),
    leg = ProtoField.uint8("insane.leg", "Leg, modulo 8", base.DEC, nil, 0xe0),
    check = ProtoField.uint32("insane.check", "Check", base.HEX),
    check_good = ProtoField.bool("insane.check.good", "Check is right"),
    stream = ProtoField.uint64("insane.stream", "Stream key", base.HEX),
    host = ProtoField.uint64("insane.host", "Sending host", base.HEX),
    incarnation = ProtoField.uint64("insane.incarnation", "Incarnation", base.DEC),
    sequence = ProtoField.uint64("insane.sequence", "Sequence", base.DEC),
    instant = ProtoField.uint64("insane.instant", "Source instant, ns", base.DEC),
    clock = ProtoField.uint8("insane.instant.clock", "Of the clock", base.DEC, clocks, 0xc0),
    closes = ProtoField.bool("insane.fence.closes", "The source has closed"),
    history = ProtoField.bool("insane.instant.history", "Emitted before its receiver joined", 8, nil, 0x20),
    channel = ProtoField.uint32("insane.channel", "Channel", base.DEC),
    source = ProtoField.uint32("insane.source", "Source", base.DEC),
    length = ProtoField.uint32("insane.length", "Message length, bytes", base.DEC),
    offset = ProtoField.uint32("insane.offset", "Fragment offset, bytes", base.DEC),
    payload = ProtoField.bytes("insane.payload", "Payload"),
    bundle = ProtoField.uint16("insane.bundle.frames", "Frames in this datagram", base.DEC),

    o_kind = ProtoField.uint8("insane.overlay.kind", "Body", base.DEC, overlay_kinds),
    o_what = ProtoField.uint8("insane.overlay.what", "About the group", base.DEC, group_kinds),
    o_probe = ProtoField.uint64("insane.overlay.probe", "Number of the probe", base.DEC),
    o_restart = ProtoField.bool("insane.overlay.restart", "Starts anew", 8, nil, 0x01),
    o_count = ProtoField.uint16("insane.overlay.count", "Changes", base.DEC),
    o_check = ProtoField.uint32("insane.overlay.check", "Check", base.HEX),
    o_host = ProtoField.uint64("insane.overlay.host", "Sending host", base.HEX),
    o_incarnation = ProtoField.uint64("insane.overlay.incarnation", "Its incarnation", base.DEC),
    o_serves = ProtoField.uint32("insane.overlay.serves", "Serves attempt", base.DEC),
    o_follows = ProtoField.uint32("insane.overlay.follows", "Follows in attempt", base.DEC),
    o_hash2 = ProtoField.uint64("insane.overlay.stream_check", "Second hash of the stream's name", base.HEX),
    o_version = ProtoField.uint64("insane.overlay.version", "Version of the sender's interest", base.DEC),
    o_applied = ProtoField.uint64("insane.overlay.applied", "Version applied of the receiver's", base.DEC),
    o_to = ProtoField.uint64("insane.overlay.to", "For incarnation", base.DEC),
    o_stamp = ProtoField.uint64("insane.overlay.stamp", "Sent at (sender's clock)", base.DEC),
    o_echo = ProtoField.uint64("insane.overlay.echo", "Newest stamp of the receiver", base.DEC),
    o_held = ProtoField.uint64("insane.overlay.held", "Held for (ns)", base.DEC),
    o_hash = ProtoField.uint64("insane.overlay.hash", "Hash of all interest", base.HEX),
    o_number = ProtoField.uint64("insane.overlay.number", "Number of interests", base.DEC),
    o_base = ProtoField.uint64("insane.overlay.base", "From version", base.DEC),
    o_upto = ProtoField.uint64("insane.overlay.upto", "To version", base.DEC),
    o_stream = ProtoField.uint64("insane.overlay.stream", "Stream key", base.HEX),
    o_channel = ProtoField.uint32("insane.overlay.channel", "Channel", base.DEC),
    o_on = ProtoField.bool("insane.overlay.on", "Has a sink"),
    o_joins = ProtoField.uint32("insane.overlay.joins", "Joins of sinks so far"),
    o_schema_hash = ProtoField.uint64("insane.overlay.schema.hash", "Hash of the sinks' schema", base.HEX),
    o_schema = ProtoField.stringz("insane.overlay.schema", "Schema of the sinks"),

    r_kind = ProtoField.uint8("insane.reliable.kind", "Body", base.DEC, reliable_kinds),
    r_fresh = ProtoField.bool("insane.reliable.fresh", "Fresh member", 8, nil, 0x01),
    r_keeps = ProtoField.bool("insane.reliable.keeps", "The source keeps its last values", 8, nil, 0x02),
    r_nak = ProtoField.bool("insane.reliable.nak", "Asks for repair (NAK)", 8, nil, 0x01),
    r_gone = ProtoField.bool("insane.reliable.gone", "Nobody listens any more", 8, nil, 0x02),
    r_check = ProtoField.uint32("insane.reliable.check", "Check", base.HEX),
    r_token = ProtoField.uint64("insane.reliable.token", "Token", base.HEX),
    r_base = ProtoField.uint64("insane.reliable.base", "First message on offer", base.DEC),
    r_sent = ProtoField.uint64("insane.reliable.sent", "Sent up to message", base.DEC),
    r_next = ProtoField.uint64("insane.reliable.next", "Next message expected", base.DEC),
    r_limit = ProtoField.uint64("insane.reliable.limit", "Credit up to message", base.DEC),
    r_life = ProtoField.uint64("insane.reliable.life", "Incarnation of the sender", base.DEC),
    r_offset = ProtoField.uint32("insane.reliable.offset", "Bytes into that message", base.DEC),
    r_recap = ProtoField.uint32("insane.reliable.recap", "Recap for sinks that joined later", base.DEC),
    r_past = ProtoField.uint64("insane.reliable.past", "Of the past to them before message", base.DEC),
}
for _, field in pairs(f) do
    insane.fields[#insane.fields + 1] = field
end

local wrong_check = ProtoExpert.new("insane.check.bad", "The header does not match its check",
    expert.group.CHECKSUM, expert.severity.ERROR)
local too_short = ProtoExpert.new("insane.short", "The frame ends before its parts do",
    expert.group.MALFORMED, expert.severity.WARN)
insane.experts = { wrong_check, too_short }

-- The keys of the check: splitmix64 from "INSANEv1", made odd; one for each word of 32 bits.
local keys = {}
do
    -- Little-endian: "INSA" is the lower half.
    local state = UInt64.new(0x41534e49, 0x3176454e)
    local gamma = UInt64.new(0x7f4a7c15, 0x9e3779b9)
    local m1 = UInt64.new(0x1ce4e5b9, 0xbf58476d)
    local m2 = UInt64.new(0x133111eb, 0x94d049bb)
    for word = 0, HEADER / 4 - 1 do
        state = state + gamma
        local key = state
        key = key:bxor(key:rshift(30)) * m1
        key = key:bxor(key:rshift(27)) * m2
        keys[word] = key:bxor(key:rshift(31)):bor(UInt64.new(1, 0))
    end
end

-- The upper half of the sum of words times keys; the check's own word is left out.
local function check_of(tvb)
    local sum = UInt64.new(0, 0)
    for word = 0, HEADER / 4 - 1 do
        if word ~= 1 then
            sum = sum + UInt64.new(tvb(word * 4, 4):le_uint(), 0) * keys[word]
        end
    end
    return sum:higher()
end

local function is_frame(tvb)
    return tvb:len() >= HEADER and tvb(0, 1):uint() == 0x49 and tvb(1, 1):uint() == VERSION
        and kinds[tvb(2, 1):uint()] ~= nil
end

-- Adds fields of these places, as far as the bytes reach; false if they do not.
local function add_all(tree, tvb, places)
    for _, place in ipairs(places) do
        local field, at, len = place[1], place[2], place[3]
        if at + len > tvb:len() then
            tree:add_proto_expert_info(too_short)
            return false
        end
        tree:add_le(field, tvb(at, len))
    end
    return true
end

-- The two highest bits name the clock. Without a name the word is what the application gave.
local NS_MASK = UInt64.new(0xffffffff, 0x1fffffff)
-- 2020-01-01 TAI, ns since 1970.
local TAI_BASE = UInt64.new(3112828928, 367368757)

local function source_instant(tree, tvb)
    local word, clock = tvb(40, 8):le_uint64(), tvb(47, 1):bitfield(0, 2)
    local named = clock == 1 or clock == 2
    local ns = named and word:band(NS_MASK) or word
    if clock == 2 then
        ns = ns + TAI_BASE
    end
    local item = tree:add(f.instant, tvb(40, 8), ns)
    item:add(f.clock, tvb(47, 1))
    if named then
        item:add(f.history, tvb(47, 1))
    end
end

local function reliable_body(tvb, tree)
    if tvb:len() < HEADER then
        tree:add_proto_expert_info(too_short)
        return "cut report"
    end
    local body = tree:add(insane, tvb(0, HEADER), "Report on a reliable flow")
    local kind = tvb(0, 1):uint()
    body:add(f.r_kind, tvb(0, 1))
    add_all(body, tvb, { { f.r_check, 4, 4 }, { f.r_token, 8, 8 } })
    if kind == 1 then
        add_all(body, tvb, {
            { f.r_fresh, 1, 1 }, { f.r_keeps, 1, 1 }, { f.r_base, 16, 8 }, { f.r_sent, 24, 8 }, { f.r_offset, 40, 4 },
            { f.r_recap, 44, 4 }, { f.r_past, 32, 8 },
        })
        return string.format("sync from %s, sent %s", tvb(16, 8):le_uint64(), tvb(24, 8):le_uint64())
    end
    add_all(body, tvb, {
        { f.r_nak, 1, 1 }, { f.r_gone, 1, 1 }, { f.r_next, 16, 8 }, { f.r_limit, 24, 8 }, { f.r_life, 32, 8 },
        { f.r_offset, 40, 4 }, { f.r_recap, 44, 4 },
    })
    local nak = tvb(1, 1):uint() % 2 == 1 and " NAK" or ""
    return string.format("ack next %s, credit to %s%s", tvb(16, 8):le_uint64(), tvb(24, 8):le_uint64(), nak)
end

local function overlay_body(tvb, tree)
    local HEAD, CHANGE = 56, 64
    local shortest = tvb(0, 1):uint() == 8 and 40 or HEAD
    if tvb:len() < shortest then
        tree:add_proto_expert_info(too_short)
        return "cut body"
    end
    local body = tree:add(insane, tvb(0), "Overlay body")
    local kind = tvb(0, 1):uint()
    if kind == 5 then
        add_all(body, tvb, {
            { f.o_kind, 0, 1 }, { f.o_check, 4, 4 }, { f.o_host, 8, 8 }, { f.o_incarnation, 16, 8 },
            { f.o_to, 24, 8 }, { f.o_stamp, 32, 8 }, { f.o_echo, 40, 8 }, { f.o_held, 48, 8 },
        })
        return string.format("link heartbeat, stamp %s", tvb(32, 8):le_uint64())
    elseif kind == 7 then
        add_all(body, tvb, {
            { f.o_kind, 0, 1 }, { f.o_check, 4, 4 }, { f.o_host, 8, 8 }, { f.o_incarnation, 16, 8 },
            { f.o_to, 24, 8 }, { f.o_stream, 32, 8 }, { f.o_hash2, 40, 8 }, { f.o_channel, 48, 4 },
            { f.o_schema_hash, 56, 8 },
        })
        if tvb:len() >= 96 then
            body:add(f.o_schema, tvb(64, 32))
        else
            body:add_proto_expert_info(too_short)
        end
        return "refusal of sinks"
    elseif kind == 8 then
        add_all(body, tvb, {
            { f.o_kind, 0, 1 }, { f.o_what, 1, 1 }, { f.o_check, 4, 4 }, { f.o_host, 8, 8 },
            { f.o_incarnation, 16, 8 }, { f.o_to, 24, 8 }, { f.o_probe, 32, 8 },
        })
        return "group " .. (group_kinds[tvb(1, 1):uint()] or "unknown")
    end
    add_all(body, tvb, {
        { f.o_kind, 0, 1 }, { f.o_restart, 1, 1 }, { f.o_count, 2, 2 }, { f.o_check, 4, 4 }, { f.o_host, 8, 8 },
        { f.o_incarnation, 16, 8 }, { f.o_to, 24, 8 }, { f.o_version, 32, 8 }, { f.o_applied, 40, 8 },
        { f.o_serves, 48, 4 }, { f.o_follows, 52, 4 },
    })
    local name = overlay_kinds[kind] or "unknown"
    if kind == 2 then
        add_all(body, tvb, { { f.o_hash, 56, 8 }, { f.o_number, 64, 8 } })
    elseif kind == 6 and add_all(body, tvb, { { f.o_base, 56, 8 }, { f.o_upto, 64, 8 } }) then
        local count = tvb(2, 2):le_uint()
        for at = 72, 72 + (count - 1) * CHANGE, CHANGE do
            if at + CHANGE > tvb:len() then
                body:add_proto_expert_info(too_short)
                break
            end
            local op = tvb(at + 20, 4):le_uint()
            local on = op % 2 == 1
            local change = body:add(insane, tvb(at, CHANGE), on and "Join" or "Leave")
            add_all(change, tvb, { { f.o_stream, at, 8 }, { f.o_hash2, at + 8, 8 }, { f.o_channel, at + 16, 4 } })
            change:add(f.o_on, tvb(at + 20, 4), on)
            change:add(f.o_joins, tvb(at + 20, 4), (op - op % 2) / 2)
            if tvb(at + 32, 1):uint() ~= 0 then
                change:add_le(f.o_schema_hash, tvb(at + 24, 8))
                change:add(f.o_schema, tvb(at + 32, 32))
            end
        end
        name = string.format("%s of %d", name, count)
    end
    return string.format("%s version %s", name, tvb(32, 8):le_uint64())
end

function insane.dissector(tvb, pinfo, root)
    if not is_frame(tvb) then
        return 0
    end
    local kind = tvb(2, 1):uint()
    pinfo.cols.protocol = "INSANE"
    local tree = root:add(insane, tvb(0, HEADER), "INSANE " .. kinds[kind])
    add_all(tree, tvb, {
        { f.version, 1, 1 }, { f.kind, 2, 1 }, { f.lane, 3, 1 }, { f.reliable, 3, 1 }, { f.leg, 3, 1 },
    })
    local check = tree:add_le(f.check, tvb(4, 4))
    local good = check_of(tvb) == tvb(4, 4):le_uint()
    check:add(f.check_good, tvb(4, 4), good):set_generated()
    if not good then
        check:add_proto_expert_info(wrong_check)
    end
    add_all(tree, tvb, {
        { f.stream, 8, 8 }, { f.host, 16, 8 }, { f.incarnation, 24, 8 }, { f.sequence, 32, 8 },
        { f.channel, 48, 4 }, { f.source, 52, 4 }, { f.length, 56, 4 }, { f.offset, 60, 4 },
    })
    if kind == 4 then
        tree:add(f.closes, tvb(40, 8), tvb(40, 4):le_uint() == 1 and tvb(44, 4):le_uint() == 0)
    else
        source_instant(tree, tvb)
    end
    local rest = tvb:len() - HEADER
    local about = string.format("%s lane %d", kinds[kind], tvb(3, 1):uint() % 8)
    if kind == 1 then
        local length, offset = tvb(56, 4):le_uint(), tvb(60, 4):le_uint()
        about = string.format("%s stream %s channel %d #%s %d B", about, tvb(8, 8):le_uint64():tohex(),
            tvb(48, 4):le_uint(), tvb(32, 8):le_uint64(), length)
        if rest < length then
            about = string.format("%s (%d at %d)", about, rest, offset)
        end
        if rest > 0 then
            tree:add(f.payload, tvb(HEADER, rest))
        end
    elseif kind == 4 then
        about = string.format("%s stream %s channel %d: leg %d ended with #%s", about, tvb(8, 8):le_uint64():tohex(),
            tvb(48, 4):le_uint(), math.floor(tvb(3, 1):uint() / 32), tvb(32, 8):le_uint64())
    elseif rest > 0 then
        local body = kind == 2 and overlay_body or reliable_body
        about = about .. " " .. body(tvb(HEADER, rest):tvb(), tree)
    end
    pinfo.cols.info = about
    return tvb:len()
end

local BUNDLE_HEAD, SUCCESSOR_HEAD, SUCCESSOR = 10, 10, 0x8000

local function is_bundle(tvb)
    return tvb:len() >= BUNDLE_HEAD and tvb(0, 4):uint() == 0x426e6401
end

-- Where each frame of a bundle begins, how many bytes are in front of it there, and how many are
-- its own; nil if any length does not add up, and then it is no bundle.
local function places_of(tvb)
    local at, finish, places, has_header = 8, tvb(4, 2):le_uint(), {}, false
    if finish > tvb:len() then
        return nil
    end
    for number = 1, tvb(6, 2):le_uint() do
        if at + 2 > finish then
            return nil
        end
        local word, front = tvb(at, 2):le_uint(), 2
        if number > 1 and word >= SUCCESSOR then
            word, front = word - SUCCESSOR, SUCCESSOR_HEAD
            if not has_header then
                return nil
            end
        elseif word == 0 then
            return nil
        else
            has_header = word >= HEADER
        end
        places[number] = { at, front, word }
        at = at + front + word
    end
    if #places == 0 or at ~= finish then
        return nil
    end
    return places
end

-- Adds a number to a word of eight bytes.
local function add_to(bytes, at, number)
    for place = at, at + 7 do
        number = number + bytes:get_index(place)
        bytes:set_index(place, number % 256)
        number = math.floor(number / 256)
    end
end

-- A frame in the short form: what it leaves out follows from the header before it.
local function successor(tvb, at, len, header)
    local bytes = header:subset(0, HEADER)
    for place = 0, 3 do
        bytes:set_index(4 + place, tvb(at + 6 + place, 1):uint())
    end
    add_to(bytes, 32, 1)
    add_to(bytes, 40, tvb(at + 2, 4):le_uint())
    for place = 56, 63 do
        bytes:set_index(place, 0)
    end
    add_to(bytes, 56, len)
    if len > 0 then
        bytes:append(tvb(at + SUCCESSOR_HEAD, len):bytes())
    end
    return bytes
end

local function bundle(tvb, pinfo, root, places)
    root:add_le(f.bundle, tvb(6, 2))
    local header
    for number, place in ipairs(places) do
        local at, front, len = place[1], place[2], place[3]
        local frame
        if front == 2 then
            frame = tvb(at + 2, len):tvb()
        else
            frame = successor(tvb, at, len, header):tvb(string.format("Frame %d of the bundle", number))
        end
        if frame:len() >= HEADER then
            header = frame(0, HEADER):bytes()
        end
        insane.dissector(frame, pinfo, root)
    end
    pinfo.cols.protocol = "INSANE"
    pinfo.cols.info = string.format("bundle of %d frames", #places)
end

-- By its looks, on any port.
insane:register_heuristic("udp", function(tvb, pinfo, root)
    if is_bundle(tvb) then
        local places = places_of(tvb)
        if places then
            bundle(tvb, pinfo, root, places)
        end
        return places ~= nil
    end
    if not is_frame(tvb) or check_of(tvb) ~= tvb(4, 4):le_uint() then
        return false
    end
    insane.dissector(tvb, pinfo, root)
    return true
end)

-- Files of `insane tap`.
DissectorTable.get("wtap_encap"):add(wtap.USER0, insane)
