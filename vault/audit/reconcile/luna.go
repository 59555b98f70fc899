package reconcile

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// The audit log of a Thales Luna HSM, as its `audit log` commands export it. A record is a line, padded with blanks:
//
//	number,date time,[S/N serial ]session n Access a:b ... operation LUNA_DERIVE_KEY returned LUNA_RET_OK(0x00000000) ...,HMAC
//
// The HMAC, in hex, may stand on a line of its own. It is over the record and the one before, under a secret that never leaves HSMs of one domain, so only
// `audit log verify` on such an HSM can check it: do that first. Here numbers must be without a gap.

const lunaFormat = "luna"

var (
	lunaRecord = pattern(`^(\d{1,10}) *,(\d\d)/(\d\d)/(\d\d) (\d\d:\d\d:\d\d),(?:S/N (\d{1,16}) )?session (\d{1,10}) Access (\d{1,10}:\d{1,10}) ` +
		`([^,]{0,200}?)operation (LUNA_[A-Z0-9_]{1,60}) returned ([A-Z][A-Z0-9_]{1,60})(?:\((0x[0-9a-fA-F]{8})\))?( [^,]{0,400}?)? *(?:,([0-9A-Fa-f]{64})(?:,([0-9A-Fa-f]+))?)?$`)
	lunaMAC  = pattern(`^[0-9A-Fa-f]{64}$`)
	lunaNone = map[string]bool{"LUNA_RET_OK": true, "LUNA_RET_SUCCESS": true, "RC_OK": true, "CKR_OK": true}
)

// lunaEvents are the events that do something with a key. What is none of them is counted.
var lunaEvents = map[string]Class{
	"LUNA_DERIVE_KEY": Derive, "LUNA_DERIVE_KEY_AND_WRAP": Wrap,
	"LUNA_UNWRAP_KEY": Unwrap, "LUNA_WRAP_KEY": Wrap,
	"LUNA_SIGN": Sign, "LUNA_SIGN_SINGLEPART": Sign, "LUNA_SIGN_END": Sign,
	"LUNA_ENCRYPT_SINGLEPART": Encrypt, "LUNA_ENCRYPT_END": Encrypt, "LUNA_DECRYPT_SINGLEPART": Decrypt, "LUNA_DECRYPT_END": Decrypt,
	"LUNA_GENERATE_KEY": Generate, "LUNA_GENERATE_KEY_PAIR": Generate,
	"LUNA_CREATE_OBJECT": Create, "LUNA_DESTROY_OBJECT": Destroy, "LUNA_MODIFY_OBJECT": Change, "LUNA_COPY_OBJECT": Change,
	"LUNA_INIT_PIN": Manage, "LUNA_SET_PIN": Manage, "LUNA_PARTITION_INIT": Manage, "LUNA_PARTITION_ZEROIZE": Manage,
	"LUNA_CLONE_AS_SOURCE": Wrap, "LUNA_CLONE_AS_TARGET": Unwrap, "LUNA_REPLICATE_AS_SOURCE": Wrap, "LUNA_REPLICATE_AS_TARGET": Unwrap,
}

// Orders of the three numbers of a Luna's date.
const (
	DayMonthYear = "dmy"
	MonthDayYear = "mdy"
	YearMonthDay = "ymd"
)

// ReadLuna reads the audit log of a Luna HSM. order is that of the dates in it, location where the HSM's clock is.
func ReadLuna(r io.Reader, order string, location *time.Location) (*Token, error) {
	layout := map[string]string{DayMonthYear: "02/01/06", MonthDayYear: "01/02/06", YearMonthDay: "06/01/02"}[order]
	if layout == "" {
		return nil, fmt.Errorf("the order of a date is %q, %q or %q, not %q", DayMonthYear, MonthDayYear, YearMonthDay, order)
	}
	t := newToken(lunaFormat, counted)
	in := bufio.NewScanner(r)
	in.Buffer(nil, 1<<16)
	var number, serial uint64
	macs := 0
	for line := 1; in.Scan(); line++ {
		bad := func(what string, args ...any) error {
			return &FormatError{lunaFormat, line, fmt.Sprintf(what, args...)}
		}
		text := strings.TrimRight(in.Text(), " \r")
		if text == "" {
			continue
		}
		if lunaMAC().MatchString(text) { // of the record before
			if macs++; macs > t.records {
				return nil, bad("an HMAC without a record")
			}
			continue
		}
		m := lunaRecord().FindStringSubmatch(text)
		if m == nil {
			return nil, bad("not a record of the audit log")
		}
		n, _ := strconv.ParseUint(m[1], 10, 64)
		if t.records > 0 && n != number+1 {
			return nil, bad("record %d comes after record %d: records are missing, or not in their order", n, number)
		}
		number = n
		if m[6] != "" {
			s, _ := strconv.ParseUint(m[6], 10, 64)
			if serial != 0 && s != serial {
				return nil, bad("a record of HSM %d among those of HSM %d", s, serial)
			}
			serial = s
		}
		at, err := time.ParseInLocation(layout+" 15:04:05", m[2]+"/"+m[3]+"/"+m[4]+" "+m[5], location)
		if err != nil {
			return nil, bad("a date that does not exist, if its order is %q", order)
		}
		if at.Before(t.last) {
			return nil, bad("its time is before that of the record before: the clock was set back, or the order of the date is not %q", order)
		}
		if m[14] != "" {
			macs++
		}
		t.saw(m[10], at)
		class, does := lunaEvents[m[10]]
		switch ok := lunaNone[m[11]] && (m[12] == "" || m[12] == "0x00000000"); {
		case !does:
		case !ok:
			t.failed[class]++
		default:
			t.ops = append(t.ops, &operation{class: class, function: m[10], at: at, place: fmt.Sprintf("record %d, session %s", n, m[7])})
		}
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	if t.records == 0 {
		return nil, &FormatError{lunaFormat, 1, "there is no record in this file"}
	}
	if macs != t.records {
		return nil, &FormatError{lunaFormat, 1, fmt.Sprintf("%d records and %d HMACs", t.records, macs)}
	}
	t.notes = append(t.notes, "The HMACs of a Luna's audit log can be verified only by an HSM of its domain (`audit log verify`): do that first.",
		"Only what the audit role had logged is here: key use must have been logged all the time, successes included.")
	return t, nil
}
