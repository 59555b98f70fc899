// Package pkcs11uri reads and writes PKCS#11 URIs (RFC 7512), by which an operator names a token, the library that reaches it and
// the place of its PIN in one line:
//
//	pkcs11:token=sallyport;serial=1f0a?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/sallyport/pin
//
// [Parse] is stricter than the RFC, because a URI that was half understood selects the wrong token. It refuses an attribute twice,
// one that RFC 7512 does not define (vendors' own too), characters that should have been percent-encoded, and
// text that is not UTF-8 or has control characters in it. An attribute of the path that is there and empty, as "serial=", is no mistake: it matches what is empty, and nothing
// else (section 2.3). One of the query would say nothing, and is refused. And it refuses pin-value: a PIN has no place in a configuration file, on a
// command line or in a log. No error repeats a value, since it may be a PIN that somebody wrote into the wrong place.
//
// What a URI means is the caller's to decide: this package opens no file, loads nothing and trusts nothing.
package pkcs11uri

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	// ErrMalformed: not a PKCS#11 URI, or not one that can be used.
	ErrMalformed = errors.New("not a usable PKCS#11 URI")
	// ErrPINValue: the URI holds a PIN. It is of the kind ErrMalformed besides.
	ErrPINValue = errors.New("a PKCS#11 URI must not hold a PIN: take pin-value out of it, change the PIN, and name a pin-source")
)

// maxURI bounds a URI, in bytes.
const maxURI = 8192

// URI is a PKCS#11 URI, its values decoded. The value of an absent attribute is empty, and so may be that of one that is there: [URI.Has] tells.
type URI struct {
	// The token, as C_GetTokenInfo describes it.
	Token, Manufacturer, Serial, Model string
	// The library, as C_GetInfo describes it.
	LibraryManufacturer, LibraryDescription, LibraryVersion string
	// The slot, as C_GetSlotInfo describes it, and its number in decimal.
	SlotDescription, SlotManufacturer, SlotID string
	// An object of the token. Type is public, private, cert, secret-key or data; ID is bytes, not text.
	Object, Type, ID string
	// Where the PIN is: a file URI, an absolute path, or what the reader of the URI understands besides.
	PINSource string
	// The library's name without path and suffix, or the path of it.
	ModuleName, ModulePath string

	empty uint16 // of attributes, those that are there and empty
}

// Has tells whether the URI says anything of an attribute, by its name in RFC 7512, if only that it is empty.
func (u *URI) Has(name string) bool {
	for i, a := range u.attributes() {
		if a.name == name {
			return *a.value != "" || u.empty>>i&1 != 0
		}
	}
	return false
}

// An attribute is a line of RFC 7512, sections 2.3 and 2.4.
type attribute struct {
	name  string
	query bool
	value *string
	check func(string) bool
}

// attributes are those of u, in the order in which they are written.
func (u *URI) attributes() []attribute {
	return []attribute{
		{"token", false, &u.Token, text},
		{"manufacturer", false, &u.Manufacturer, text},
		{"serial", false, &u.Serial, text},
		{"model", false, &u.Model, text},
		{"library-manufacturer", false, &u.LibraryManufacturer, text},
		{"library-description", false, &u.LibraryDescription, text},
		{"library-version", false, &u.LibraryVersion, version},
		{"slot-description", false, &u.SlotDescription, text},
		{"slot-manufacturer", false, &u.SlotManufacturer, text},
		{"slot-id", false, &u.SlotID, number},
		{"object", false, &u.Object, text},
		{"type", false, &u.Type, class},
		{"id", false, &u.ID, func(string) bool { return true }},
		{"pin-source", true, &u.PINSource, text},
		{"module-name", true, &u.ModuleName, moduleName},
		{"module-path", true, &u.ModulePath, text},
	}
}

func text(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func number(s string) bool {
	_, err := strconv.ParseUint(s, 10, 64)
	return digits(s) && err == nil
}

func version(s string) bool {
	major, minor, dot := strings.Cut(s, ".")
	return digits(major) && (!dot || digits(minor))
}

func class(s string) bool {
	switch s {
	case "public", "private", "cert", "secret-key", "data":
		return true
	}
	return false
}

func moduleName(s string) bool { return text(s) && !strings.ContainsAny(s, "/\\") }

// Parse reads a URI.
func Parse(s string) (*URI, error) {
	bad := func(format string, args ...any) (*URI, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
	}
	// First of all, because every other error about this URI would be about text with a PIN in it.
	if strings.Contains(strings.ToLower(s), "pin-value=") {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, ErrPINValue)
	}
	const scheme = "pkcs11:"
	if len(s) > maxURI {
		return bad("it is longer than %d bytes", maxURI)
	}
	if len(s) < len(scheme) || !strings.EqualFold(s[:len(scheme)], scheme) {
		return bad("it does not begin with %s", scheme)
	}
	path, query, asked := strings.Cut(s[len(scheme):], "?")
	var u URI
	if err := u.read(path, ";", false); err != nil {
		return nil, err
	}
	if asked {
		if err := u.read(query, "&", true); err != nil {
			return nil, err
		}
	}
	return &u, nil
}

// read reads one of the two halves.
func (u *URI) read(half, separator string, query bool) error {
	if half == "" {
		return nil
	}
	all := u.attributes()
	for part := range strings.SplitSeq(half, separator) {
		name, raw, ok := strings.Cut(part, "=")
		if !ok {
			return fmt.Errorf("%w: a part of it is not an attribute with a value", ErrMalformed)
		}
		var a *attribute
		place := 0
		for i := range all {
			if all[i].name == name {
				a, place = &all[i], i
			}
		}
		switch {
		case a == nil && plain(name):
			return fmt.Errorf("%w: the attribute %s is not known", ErrMalformed, name)
		case a == nil:
			return fmt.Errorf("%w: an attribute is not known", ErrMalformed)
		case a.query && !query:
			return fmt.Errorf("%w: the attribute %s belongs behind the question mark", ErrMalformed, name)
		case !a.query && query:
			return fmt.Errorf("%w: the attribute %s belongs before the question mark", ErrMalformed, name)
		case *a.value != "" || u.empty>>place&1 != 0:
			return fmt.Errorf("%w: the attribute %s is there twice", ErrMalformed, name)
		case raw == "" && (query || !a.check("")):
			return fmt.Errorf("%w: the attribute %s is empty: leave it out", ErrMalformed, name)
		case raw == "":
			u.empty |= 1 << place
			continue
		}
		value, ok := decode(raw, query)
		if !ok {
			return fmt.Errorf("%w: the attribute %s has a character that must be percent-encoded, or a wrong encoding", ErrMalformed, name)
		}
		if !a.check(value) {
			return fmt.Errorf("%w: the attribute %s has a value that it cannot have", ErrMalformed, name)
		}
		*a.value = value
	}
	return nil
}

// plain tells a mistyped name from text that landed in a name's place and should not be repeated.
func plain(name string) bool {
	return name != "" && len(name) <= 32 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz-_") == ""
}

// available tells whether a byte may stand for itself: unreserved characters of RFC 3986, and pk11-path-res-avail and
// pk11-query-res-avail of RFC 7512.
func available(c byte, query bool) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~:[]@!$'()*+,=", c) >= 0:
		return true
	case query:
		return strings.IndexByte("/?|", c) >= 0
	}
	return c == '&'
}

func decode(raw string, query bool) (string, bool) {
	value := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		if raw[i] != '%' {
			if !available(raw[i], query) {
				return "", false
			}
			value = append(value, raw[i])
			continue
		}
		if i+2 >= len(raw) {
			return "", false
		}
		high, low := digit(raw[i+1]), digit(raw[i+2])
		if high < 0 || low < 0 {
			return "", false
		}
		value = append(value, byte(high<<4|low))
		i += 2
	}
	return string(value), true
}

func digit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// String writes the URI, so that Parse reads the same again. There is no secret in it.
func (u *URI) String() string {
	var path, query []string
	for i, a := range u.attributes() {
		switch {
		case *a.value == "" && u.empty>>i&1 == 0:
		case a.query:
			query = append(query, a.name+"="+encode(*a.value, true))
		case a.name == "id": // RFC 7512 section 2.3: the whole value should be encoded
			path = append(path, a.name+"="+percent(*a.value))
		default:
			path = append(path, a.name+"="+encode(*a.value, false))
		}
	}
	s := "pkcs11:" + strings.Join(path, ";")
	if len(query) > 0 {
		s += "?" + strings.Join(query, "&")
	}
	return s
}

func encode(value string, query bool) string {
	var b strings.Builder
	for i := range len(value) {
		if available(value[i], query) {
			b.WriteByte(value[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", value[i])
		}
	}
	return b.String()
}

func percent(value string) string {
	var b strings.Builder
	for i := range len(value) {
		fmt.Fprintf(&b, "%%%02X", value[i])
	}
	return b.String()
}
