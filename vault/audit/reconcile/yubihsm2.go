package reconcile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The log of a YubiHSM 2, as `yubihsm-shell -a get-logs` prints it, as text or in hex, or as the device gives it. A device holds 62 entries, so a
// record is what was fetched at several times, one after the other; what was fetched twice is taken once. An entry is 32 bytes, big-endian:
//
//	number (2) | command (1) | length (2) | session key (2) | target key (2) | second key (2) | result (1) | tick (4) | digest (16)
//
// Its digest is the first half of SHA-256 over the 16 bytes before it and the digest of the entry before. That chain is verified, so no entry can be
// left out, changed or put in between by somebody who does not make all that follow anew. There is no clock in it, only ticks since the start.

const (
	yubiFormat = "yubihsm2"
	yubiEntry  = 32
	yubiData   = 16
)

var (
	yubiLine = pattern(`^item: {1,5}(\d{1,5}) -- cmd: 0x([0-9a-f]{2}) -- length: {1,4}(\d{1,5}) -- session key: 0x([0-9a-f]{4}) -- ` +
		`target key: 0x([0-9a-f]{4}) -- second key: 0x([0-9a-f]{4}) -- result: 0x([0-9a-f]{2}) -- tick: (\d{1,10}) -- hash: ([0-9a-f]{32})$`)
	yubiUnlogged = pattern(`^(\d{1,5}) unlogged (boots|authentications) found$`)
	yubiFound    = pattern(`^(No logs to extract|Found \d{1,2} items?)$`)
	yubiHex      = pattern(`^[0-9a-f]+$`)
)

// yubiCommands are the commands that do something with a key. What is none of them is counted.
var yubiCommands = map[byte]struct {
	name  string
	class Class
}{
	0x08: {"RESET DEVICE", Manage}, 0x4f: {"SET OPTION", Manage}, 0x6c: {"CHANGE AUTHENTICATION KEY", Manage}, 0x44: {"PUT AUTHENTICATION KEY", Manage},
	0x45: {"PUT ASYMMETRIC KEY", Create}, 0x42: {"PUT OPAQUE", Create}, 0x4c: {"PUT WRAP KEY", Create}, 0x52: {"PUT HMAC KEY", Create}, 0x65: {"PUT OTP AEAD KEY", Create},
	0x6d: {"PUT SYMMETRIC KEY", Create}, 0x73: {"PUT PUBLIC WRAP KEY", Create}, 0x5e: {"PUT TEMPLATE", Create},
	0x46: {"GENERATE ASYMMETRIC KEY", Generate}, 0x5a: {"GENERATE HMAC KEY", Generate}, 0x5b: {"GENERATE WRAP KEY", Generate}, 0x66: {"GENERATE OTP AEAD KEY", Generate},
	0x6e: {"GENERATE SYMMETRIC KEY", Generate},
	0x47: {"SIGN PKCS1", Sign}, 0x55: {"SIGN PSS", Sign}, 0x56: {"SIGN ECDSA", Sign}, 0x6a: {"SIGN EDDSA", Sign}, 0x53: {"SIGN HMAC", Sign},
	0x5d: {"SIGN SSH CERTIFICATE", Sign}, 0x64: {"SIGN ATTESTATION CERTIFICATE", Sign},
	0x57: {"DERIVE ECDH", Derive},
	0x4b: {"IMPORT WRAPPED", Unwrap}, 0x69: {"UNWRAP DATA", Unwrap}, 0x75: {"IMPORT RSA WRAPPED KEY", Unwrap}, 0x77: {"IMPORT RSA WRAPPED", Unwrap},
	0x4a: {"EXPORT WRAPPED", Wrap}, 0x68: {"WRAP DATA", Wrap}, 0x74: {"EXPORT RSA WRAPPED KEY", Wrap}, 0x76: {"EXPORT RSA WRAPPED", Wrap},
	0x58: {"DELETE OBJECT", Destroy},
	0x49: {"DECRYPT PKCS1", Decrypt}, 0x59: {"DECRYPT OAEP", Decrypt}, 0x6f: {"DECRYPT AES ECB", Decrypt}, 0x71: {"DECRYPT AES CBC", Decrypt}, 0x60: {"DECRYPT OTP", Decrypt},
	0x70: {"ENCRYPT AES ECB", Encrypt}, 0x72: {"ENCRYPT AES CBC", Encrypt},
}

// ReadYubiHSM2 reads the log of a YubiHSM 2 and verifies its chain.
func ReadYubiHSM2(r io.Reader) (*Token, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxRecord+1))
	if err != nil {
		return nil, fmt.Errorf("reading the log: %w", err)
	}
	if len(data) > maxRecord {
		return nil, &FormatError{yubiFormat, 1, "more than 1 GiB"}
	}
	y := &yubiReader{token: newToken(yubiFormat, counted)}
	if bytes.HasPrefix(data, []byte("item:")) || yubiText(data) {
		err = y.text(string(data))
	} else {
		err = y.binary(data)
	}
	if err != nil {
		return nil, err
	}
	if y.before == nil {
		return nil, &FormatError{yubiFormat, 1, "there is no entry in this record"}
	}
	if y.boots+y.logins > 0 {
		y.token.notes = append(y.token.notes, fmt.Sprintf("The device started %d times and was logged in to %d times while its log was full, and did not log that. "+
			"With the option force-audit it does nothing else meanwhile; without it, other commands may be missing too.", y.boots, y.logins))
	}
	y.token.notes = append(y.token.notes, "The log of a YubiHSM 2 has no clock: numbers are compared, times are not. Whether force-audit was on all the time is for `get-option` to say.")
	return y.token, nil
}

// maxRecord bounds a record that is read as a whole.
const maxRecord = 1 << 30

// yubiText tells what yubihsm-shell printed from bytes of the device.
func yubiText(data []byte) bool {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	line = bytes.TrimRight(line, "\r")
	return yubiUnlogged().Match(line) || yubiHex().Match(line)
}

type yubiReader struct {
	token         *Token
	before        []byte // the digest of the last entry
	number        uint16 // of the last entry
	seen          map[[yubiEntry]byte]bool
	boots, logins uint64
}

func (y *yubiReader) text(text string) error {
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimRight(line, "\r")
		bad := func(what string) error { return &FormatError{yubiFormat, i + 1, what} }
		if m := yubiLine().FindStringSubmatch(line); m != nil {
			var e [yubiEntry]byte
			number, err1 := strconv.ParseUint(m[1], 10, 16)
			length, err2 := strconv.ParseUint(m[3], 10, 16)
			tick, err3 := strconv.ParseUint(m[8], 10, 32)
			if err1 != nil || err2 != nil || err3 != nil {
				return bad("a number that is too large")
			}
			binary.BigEndian.PutUint16(e[0:], uint16(number))
			binary.BigEndian.PutUint16(e[3:], uint16(length))
			binary.BigEndian.PutUint32(e[12:], uint32(tick))
			for _, part := range []struct {
				at   int
				text string
			}{{2, m[2]}, {5, m[4]}, {7, m[5]}, {9, m[6]}, {11, m[7]}, {16, m[9]}} {
				if _, err := hex.Decode(e[part.at:], []byte(part.text)); err != nil {
					return bad("a number that is not in hex")
				}
			}
			if err := y.entry(e, i+1); err != nil {
				return err
			}
			continue
		}
		if m := yubiUnlogged().FindStringSubmatch(line); m != nil {
			n, _ := strconv.ParseUint(m[1], 10, 64)
			if m[2] == "boots" {
				y.boots += n
			} else {
				y.logins += n
			}
			continue
		}
		if line == "" || yubiFound().MatchString(line) {
			continue
		}
		if !yubiHex().MatchString(line) || len(line) < 8 || (len(line)-8)%(2*yubiEntry) != 0 {
			return bad("neither an entry nor what yubihsm-shell prints around entries")
		}
		raw, err := hex.DecodeString(line)
		if err != nil {
			return bad("hex that is none")
		}
		y.boots += uint64(binary.BigEndian.Uint16(raw))
		y.logins += uint64(binary.BigEndian.Uint16(raw[2:]))
		for raw = raw[4:]; len(raw) > 0; raw = raw[yubiEntry:] {
			if err := y.entry([yubiEntry]byte(raw), i+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// binary reads entries as the device gives them.
func (y *yubiReader) binary(data []byte) error {
	if len(data)%yubiEntry != 0 {
		return &FormatError{yubiFormat, 1, "neither what yubihsm-shell prints nor entries of 32 bytes"}
	}
	for i := 0; i < len(data); i += yubiEntry {
		if err := y.entry([yubiEntry]byte(data[i:]), i/yubiEntry+1); err != nil {
			return err
		}
	}
	return nil
}

// entry takes the next entry, if it is the next.
func (y *yubiReader) entry(e [yubiEntry]byte, line int) error {
	if y.seen[e] {
		return nil
	}
	number := binary.BigEndian.Uint16(e[:])
	if y.before == nil {
		y.seen = map[[yubiEntry]byte]bool{}
		if number != 1 {
			y.token.notes = append(y.token.notes, fmt.Sprintf("The record begins with entry %d of the device; nothing says what was before.", number))
		}
	} else {
		if number != y.number+1 {
			return &FormatError{yubiFormat, line, fmt.Sprintf("entry %d comes after entry %d: entries are missing, or not in their order", number, y.number)}
		}
		sum := sha256.Sum256(append(bytes.Clone(e[:yubiData]), y.before...))
		if !bytes.Equal(sum[:yubiEntry-yubiData], e[yubiData:]) {
			return &FormatError{yubiFormat, line, fmt.Sprintf("the digest of entry %d does not follow from the entry before: one of the two was changed", number)}
		}
	}
	if len(y.seen) > 256 { // what was fetched twice is near
		clear(y.seen)
	}
	y.seen[e] = true
	y.before, y.number = bytes.Clone(e[yubiData:]), number

	command, result := e[2], e[11]
	c, does := yubiCommands[command]
	name := c.name
	if !does {
		name = fmt.Sprintf("command 0x%02x", command)
	}
	var none = y.token.first // no clock
	y.token.saw(name, none)
	switch {
	case !does:
	case result != command|0x80:
		y.token.failed[c.class]++
	default:
		y.token.ops = append(y.token.ops, &operation{class: c.class, function: name,
			place: fmt.Sprintf("entry %d of the device, target key 0x%04x", number, binary.BigEndian.Uint16(e[7:]))})
	}
	return nil
}
