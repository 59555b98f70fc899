package reconcile

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// The audit log of an Entrust nShield HSM with firmware before 13.5, which sends messages in the Common Event Format by syslog. A line is:
//
//	[syslog header ]CEF:0|vendor|product|version|event|name|severity|key=value key=value
//
// The command of the nCore API is the event or the name, with or without "Cmd_". rt is the time in milliseconds, outcome or reason the status. Each message is signed
// by the HSM; `cef-audit-verify` checks that, and that none is missing: do that first. UDP loses messages without a trace of its own.
//
// In nCore, C_DeriveKey, C_WrapKey and C_UnwrapKey are one command, DeriveKey: they are compared together.

const nshieldFormat = "nshield"

// nshieldCommands are the commands that do something with a key. What is none of them is counted.
var nshieldCommands = map[string]Class{
	"DeriveKey": Derive, "Sign": Sign, "Encrypt": Encrypt, "Decrypt": Decrypt, "GenerateKey": Generate, "GenerateKeyPair": Generate,
	"Import": Create, "Export": Wrap, "Destroy": Destroy, "ChannelOpen": Encrypt, "InitialiseUnit": Manage, "InitialiseUnitEx": Manage,
	"SetKM": Manage, "SetNSOPerms": Manage, "MakeBlob": Wrap, "LoadBlob": Create,
}

var (
	cefKey    = pattern(`(?:^| )([A-Za-z0-9_.-]{1,64})=`)
	cefVendor = pattern(`^(?:nCipher|Entrust|Thales)`)
	cefTime   = pattern(`^\d{13}$`)
)

// ReadNShield reads the audit log of an nShield HSM in the Common Event Format.
func ReadNShield(r io.Reader) (*Token, error) {
	t := newToken(nshieldFormat, merged)
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<18)
	clock := 0
	for line := 1; in.Scan(); line++ {
		bad := func(what string, args ...any) error {
			return &FormatError{nshieldFormat, line, fmt.Sprintf(what, args...)}
		}
		text := strings.TrimRight(in.Text(), " \r")
		if text == "" {
			continue
		}
		begin := strings.Index(text, "CEF:")
		if begin < 0 {
			return nil, bad("not a message in the Common Event Format")
		}
		header, extension, ok := cefHeader(text[begin:])
		if !ok || header[0] != "CEF:0" {
			return nil, bad("not a header of the Common Event Format, version 0")
		}
		if !cefVendor().MatchString(header[1]) {
			return nil, bad("a message of another vendor")
		}
		fields, ok := cefFields(extension)
		if !ok {
			return nil, bad("an extension that is not key=value")
		}
		var at time.Time
		if rt, has := fields["rt"]; has {
			if !cefTime().MatchString(rt) {
				return nil, bad("rt is not a time in milliseconds")
			}
			ms, _ := strconv.ParseInt(rt, 10, 64)
			at = time.UnixMilli(ms).UTC()
			clock++
		}
		command := strings.TrimPrefix(header[4], "Cmd_")
		if _, known := nshieldCommands[command]; !known {
			if named := strings.TrimPrefix(header[5], "Cmd_"); nshieldCommands[named] != "" {
				command = named
			}
		}
		t.saw(command, at)
		class, does := nshieldCommands[command]
		status, has := fields["outcome"]
		if !has {
			status, has = fields["reason"]
		}
		switch ok := !has || status == "OK" || status == "Success" || status == "success"; {
		case !does:
		case !ok:
			t.failed[class]++
		default:
			t.ops = append(t.ops, &operation{class: class, function: command, at: at, place: fmt.Sprintf("line %d", line)})
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	if t.records == 0 {
		return nil, &FormatError{nshieldFormat, 1, "there is no message in this file"}
	}
	if clock != 0 && clock != t.records {
		return nil, &FormatError{nshieldFormat, 1, "some messages have a time (rt) and some have not"}
	}
	t.notes = append(t.notes, "The signatures of an nShield's audit log are verified by `cef-audit-verify`, which tells also what is missing: do that first.",
		"An nShield logs the use of a key only if the key was made with logging of its use. Derive, unwrap and wrap are one command there, and are compared together.")
	return t, nil
}

// cefHeader splits the seven fields before the extension. In them | and \ are escaped.
func cefHeader(text string) (header [7]string, extension string, ok bool) {
	var b strings.Builder
	n := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && (text[i+1] == '|' || text[i+1] == '\\'):
			i++
			b.WriteByte(text[i])
		case c == '|':
			header[n] = b.String()
			b.Reset()
			if n++; n == len(header) {
				return header, text[i+1:], true
			}
		default:
			b.WriteByte(c)
		}
	}
	return header, "", false
}

// cefFields splits an extension: a value ends before the next key. In it = and \ are escaped. No key may come twice.
func cefFields(text string) (map[string]string, bool) {
	fields := map[string]string{}
	if text == "" {
		return fields, true
	}
	places := cefKey().FindAllStringSubmatchIndex(text, -1)
	if len(places) == 0 || places[0][0] != 0 {
		return nil, false
	}
	for i, p := range places {
		end := len(text)
		if i+1 < len(places) {
			end = places[i+1][0]
		}
		name := text[p[2]:p[3]]
		if _, twice := fields[name]; twice {
			return nil, false
		}
		fields[name] = strings.NewReplacer(`\=`, `=`, `\\`, `\`, `\n`, "\n").Replace(text[p[1]:end])
	}
	return fields, true
}
