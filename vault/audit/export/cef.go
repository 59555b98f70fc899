package export

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// cef writes an event as ArcSight's Common Event Format, version 0: a header of seven parts, then key=value with the keys of its dictionary.
func cef(e *Event) []byte {
	var b bytes.Buffer
	id := string(e.Kind)
	switch {
	case e.Fault != nil:
		id += ":" + string(e.Fault.Code)
	case e.Outcome != "":
		id += ":" + string(e.Outcome)
	}
	fmt.Fprintf(&b, "CEF:0|Sallyport|vault|%s|%s|%s|%d|", cefHead(eventFormat), cefHead(id), cefHead(e.Message), [...]int{informational: 1, low: 3, medium: 5, high: 8, critical: 10}[e.Severity])
	first := true
	put := func(key, value string) {
		if value == "" {
			return
		}
		if !first {
			b.WriteByte(' ')
		}
		first = false
		b.WriteString(key + "=" + cefValue(value))
	}
	labelled := func(key, label, value string) {
		if value != "" {
			put(key, value)
			put(key+"Label", label)
		}
	}
	number := func(n uint64) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatUint(n, 10)
	}
	put("externalId", e.UID)
	put("rt", strconv.FormatInt(e.at.UnixMilli(), 10))
	put("cat", string(e.Kind))
	put("outcome", cefOutcome(e))
	put("reason", string(e.Outcome))
	put("suid", either(e.ReaderID, e.Reader))
	put("suser", e.Name)
	put("duid", either(e.OwnerID, e.Owner))
	put("cnt", number(e.Count))
	put("deviceExternalId", e.Token)
	put("deviceFacility", e.Log)
	fields := string(e.Field)
	if fields == "" {
		for i, f := range e.Fields {
			if i > 0 {
				fields += ","
			}
			fields += string(f)
		}
	}
	labelled("cs1", "field", fields)
	labelled("cs2", "grant", text(e.Grant))
	labelled("cs3", "purpose", e.Purpose)
	labelled("cs4", "grade", e.Grade)
	labelled("cs5", "request", text(e.Request))
	labelled("cs6", "custody", string(e.Custody))
	if e.Index != nil {
		labelled("cn1", "index", strconv.FormatUint(*e.Index, 10))
	}
	labelled("cn2", "version", number(e.Version))
	if e.RevokedBy != nil {
		labelled("cn3", "revokedBy", strconv.FormatUint(*e.RevokedBy, 10))
	}
	labelled("flexString1", "gradeBefore", e.GradeBefore)
	if e.ClockStep {
		labelled("flexString2", "clockStepMs", strconv.FormatInt(e.ClockSkew, 10))
	}
	if e.Fault != nil {
		put("fname", e.Fault.File)
	}
	put("msg", e.Message)
	return b.Bytes()
}

func cefOutcome(e *Event) string {
	switch status(e) {
	case success:
		return "success"
	case failure:
		return "failure"
	}
	return "unknown"
}

// cefHead escapes a part of the header, which has no way to hold a line's end.
func cefHead(s string) string {
	return strings.NewReplacer(`\`, `\\`, `|`, `\|`, "\r\n", " ", "\n", " ", "\r", " ").Replace(s)
}

// cefValue escapes a value of the extension.
func cefValue(s string) string {
	return strings.NewReplacer(`\`, `\\`, `=`, `\=`, "\r\n", `\n`, "\n", `\n`, "\r", `\r`).Replace(s)
}

// text is the text of what may be missing.
func text[T fmt.Stringer](v *T) string {
	if v == nil {
		return ""
	}
	return (*v).String()
}

// either is the id, or else the pseudonym.
func either[A, B fmt.Stringer](id *A, pseudonym *B) string {
	if id != nil {
		return (*id).String()
	}
	return text(pseudonym)
}
