package reconcile

import (
	"fmt"
	"regexp"
	"sync"
	"time"
)

// Class is what an operation of a token does.
type Class string

// The classes. What is none of them (sessions, searches, reading attributes) is counted by name and never compared.
const (
	Derive   Class = "derive"   // C_DeriveKey
	Unwrap   Class = "unwrap"   // C_UnwrapKey
	Wrap     Class = "wrap"     // C_WrapKey
	Sign     Class = "sign"     // C_Sign, C_SignRecover
	Encrypt  Class = "encrypt"  // C_Encrypt
	Decrypt  Class = "decrypt"  // C_Decrypt
	Generate Class = "generate" // C_GenerateKey, C_GenerateKeyPair
	Create   Class = "create"   // C_CreateObject
	Destroy  Class = "destroy"  // C_DestroyObject
	Change   Class = "change"   // C_SetAttributeValue, C_CopyObject
	Manage   Class = "manage"   // C_InitToken, C_InitPIN, C_SetPIN
)

// classes is the order of reports.
var classes = []Class{Derive, Unwrap, Wrap, Sign, Destroy, Generate, Create, Change, Manage, Encrypt, Decrypt}

// kind is what a token's record tells of a key.
type kind string

const (
	unknown        kind = ""                           // the record does not tell
	own            kind = "a session key of its own"   // made in the same process, gone with it: canaries and probes
	reencryption   kind = "a re-encryption key"        // custody resident
	loaded         kind = "a sealed re-encryption key" // custody sealed, unwrapped into a session
	importResident kind = "the import key of custody resident"
	importSealed   kind = "the import key of custody sealed"
	sealing        kind = "a sealing key"
	logKey         kind = "the log key"
	storeKey       kind = "the store key"
	stateObject    kind = "the signer's state"
	derived        kind = "a derived value"
	foreign        kind = "a key that Sallyport does not know" // an object of the token with another name
	entangled      kind = "a key that mixed lines do not tell" // it was made, found or chosen in lines that are mixed
)

// key is one key in a token's record. id is set for a re-encryption key of custody resident: the hash that names it.
type key struct {
	kind kind
	id   string
}

func (k key) String() string {
	switch {
	case k.kind == unknown:
		return "a key that the token's record does not tell"
	case k.id != "":
		return string(k.kind) + " " + k.id
	}
	return string(k.kind)
}

// An operation is one call in a token's record that does something with a key.
type operation struct {
	class    Class
	function string // as the record calls it
	key      key    // that does it
	subject  key    // that it is done to: unwrapped, wrapped, destroyed, made
	// generator: a derive on the generator of the curve, which is in no capsule: a canary. Only where the record has points.
	generator bool
	message   []byte    // that was signed, where the record has it
	at        time.Time // zero where the record has no clock
	place     string    // in the record
	cut       bool      // its process ended without C_Finalize
	mixed     bool      // only its class is certain: its lines are mixed with those of other calls, one of which may have failed
	maybe     bool      // besides, it may have asked for a length only
}

// vague tells whether the record does not tell which key did it, or to which, because of mixed lines.
func (o *operation) vague() bool {
	if o.class == Unwrap && o.subject.kind == reencryption {
		return o.mixed // the key is named by its own id
	}
	return o.mixed || o.key.kind == entangled || o.subject.kind == entangled
}

// detail is how much a kind of record tells.
type detail int

const (
	merged   detail = iota // derive, unwrap and wrap are one operation; no keys
	counted                // functions, no keys
	canaries               // functions and points, no keys
	named                  // functions, points, and which key
)

// A Token is a token's own record of what it did.
type Token struct {
	format  string
	detail  detail
	ops     []*operation      // that succeeded, in the order of the record
	calls   map[string]uint64 // all calls by name
	failed  map[Class]uint64  // operations that failed: they did nothing and need no entry
	first   time.Time         // span of the record; zero without a clock
	last    time.Time
	notes   []string // what a reader of the report must know of this record
	tangles []*tangle
	records int
}

func newToken(format string, d detail) *Token {
	return &Token{format: format, detail: d, calls: map[string]uint64{}, failed: map[Class]uint64{}}
}

// saw counts a call and stretches the span of the record over it.
func (t *Token) saw(name string, at time.Time) {
	t.records++
	t.calls[name]++
	if at.IsZero() {
		return
	}
	if t.first.IsZero() || at.Before(t.first) {
		t.first = at
	}
	if at.After(t.last) {
		t.last = at
	}
}

// Notes are what a reader of a report must know of the record: what is secret in it, what it cannot tell, what of it was not verified.
func (t *Token) Notes() []string { return t.notes }

// A FormatError is a token's record that is not what its format says.
type FormatError struct {
	Format string
	Line   int // or the number of a binary record, from 1
	What   string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s record, line %d: %s", e.Format, e.Line, e.What)
}

// pattern is a regular expression that is compiled when it is first used: whoever reads no token's record does not wait for it.
func pattern(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}
