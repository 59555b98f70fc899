package reference

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// What an Event does.
const (
	Set    = "set"    // an owner publishes new values
	Remove = "remove" // an owner takes fields out
	Grant  = "grant"  // an owner lets a reader read
	Revoke = "revoke" // an owner stops a reader
	Rotate = "rotate" // an owner moves fields to new keys

	GrantWrite = "grant-write" // an owner lets somebody write fields
	EndWrite   = "end-write"   // an owner ends that
	Write      = "write"       // a writer publishes values of an owner's fields
	Adopt      = "adopt"       // an owner publishes what a writer wrote as their own
	Reject     = "reject"      // an owner publishes their own value again

	Sync   = "sync"   // a device finishes what it began and learns what others did
	Ask    = "ask"    // a reader asks an owner for consent
	Answer = "answer" // an owner answers: grants in full, in part, or denies
	Hear   = "hear"   // a reader hears what became of what it asked for
	Stop   = "stop"   // an owner withdraws: a revocation, and the reader is told

	Replace = "replace" // an owner's device was lost or stolen: the root is replaced, and other devices are of no use any more
	Restore = "restore" // a device is made anew from the newest backup

	Register  = "register"  // a reader lets nobody look it up but by introduction
	Introduce = "introduce" // an owner introduces a contact to another
	LookUp    = "look-up"   // a reader looks another one up
	Specify   = "specify"   // a reader asks an owner for fields that another one, a source, is to deposit; to answer it lets the source write them and the reader read them
	Forward   = "forward"   // a reader hands on to the source what the owner orders
	Collect   = "collect"   // a reader reads what the source deposited, with its attestations. A deposit is a write with Attack "deposit"

	Password = "password" // an owner sets the password for a new device, or changes it; Attack: which
	Unlock   = "unlock"   // an owner begins the count of tries anew
	Guess    = "guess"    // somebody with a new device tries a password

	KitPrint   = "kit-print"   // an owner prints a recovery sheet
	KitReplace = "kit-replace" // likewise, and ends one that works
	KitOff     = "kit-off"     // an owner switches the sheet off
	KitTest    = "kit-test"    // an owner finds out whether a sheet works; Attack: which
	Rescue     = "rescue"      // a device is made anew with a sheet; Attack: which
	SwitchOff  = "switch-off"  // a device whose root was replaced takes password and sheet away
	Drop       = "drop"        // an owner has the key server delete what password and sheet open

	Pair = "pair" // a device is made anew by approval on the owner's other one; Attack "wrong": the person types another word

	Announce = "announce" // an owner announces a new root, without the recovery key
	Object   = "object"   // an owner takes that back
	Succeed  = "succeed"  // a device carries out what it announced

	Refresh  = "refresh"  // a person reads all that others let them read, and keeps it
	Contacts = "contacts" // a person looks at what is kept
	Block    = "block"    // a person's device throws away what another one asks
	Unblock  = "unblock"  // and does not any more

	Read    = "read"    // a reader reads
	Suspend = "suspend" // a reader's keys were stolen: it suspends all its grants and replaces the keys; its other devices are of no use any more
	GiveUp  = "give-up" // a reader ends what it may read
	Freeze  = "freeze"  // two operators stop all reading of an owner
	Thaw    = "thaw"    // an owner ends that
	Close   = "close"   // an owner ends the account, for ever
	Kill    = "kill"    // a daemon is killed and, at the event's end, serves again
	Replay  = "replay"  // somebody sends again what was sent before
	Forge   = "forge"   // somebody publishes in an owner's name
	Restart = "restart" // a device's process ends and begins anew
	Calm    = "calm"    // with everything running for a while, a device has finished, or not
)

// OK is the result of what succeeded. Other results are codes of the specification, and these:
const (
	OK         = "ok"
	NoField    = "no_field"    // the device knows of no such field; nothing was begun
	NotStopped = "not_stopped" // begun; whether the reader is stopped is unknown
	NotRotated = "not_rotated" // the reader is stopped; the rotation is under way
	Replaced   = "replaced"    // another device replaced the root: this one is of no use any more
	NoRecovery = "no_recovery" // it lacks the recovery key in force; nothing was begun
	NotAsked   = "not_asked"   // this device knows of no request that waits, or of nothing that is to be done
	HasSheet   = "has_sheet"   // there is a recovery sheet that works
	TakenBack  = "taken_back"  // of an answer to a specification, one half was ended on the way, and so it was
	Newer      = "newer"       // the writer wrote something else meanwhile; nothing was begun
	Untold     = "untold"      // the account is closed, and the storefront was not told
	ThawOld    = "thaw_old"    // an end of a freeze that had waited was given up, because another freeze came later
	NotSame    = "not_same"    // the words that two devices show do not agree; nothing was handed over
	EndsSheet  = "ends_sheet"  // the recovery sheet would end with it, which another device made
	EndsWord   = "ends_word"   // likewise the password
	Overtaken  = "overtaken"   // what this device had waiting is not carried out: another decided about it later
)

// Results of an item of a [Refresh], besides those of a read, and the one of [Contacts].
const (
	None = "none" // nothing of it is here, before and after
	Kept = "kept" // it is here
)

// Event is one line of a trace.
type Event struct {
	Line   int      `json:"line"`             // of the script, for people
	Start  int64    `json:"start"`            // Unix nanoseconds
	End    int64    `json:"end"`              // Unix nanoseconds
	Who    string   `json:"who"`              // "ana/1": a device of an owner, or of a reader; of a kill: the daemons
	Do     string   `json:"do"`               // see above
	Result string   `json:"result"`           // OK or why not
	Said   string   `json:"said,omitempty"`   // the same in the words that people see
	Fields []string `json:"fields,omitempty"` // none in a revocation: all
	Number int      `json:"number,omitempty"` // of a set or a write: the number that all its values carry, used once; of a sheet: the number of the line that printed it, 0: of no line
	Reader string   `json:"reader,omitempty"` // of a grant, a revocation; who writes or wrote
	Owner  string   `json:"owner,omitempty"`  // of a write, of what is given up: whose fields
	Terms  Terms    `json:"terms,omitzero"`   // of a grant; of an answer, those of the request
	Asked  []string `json:"asked,omitempty"`  // of an answer: what was asked for
	Over   bool     `json:"over,omitempty"`   // of an answer: the request's time was over before it; of a deposit: the order's; of a sheet that was printed: the person was told that the one before opens nothing any more
	Source string   `json:"source,omitempty"` // of a specification, its answer, and what follows: who is to deposit
	To     string   `json:"to,omitempty"`     // of an introduction: to whom
	About  string   `json:"about,omitempty"`  // the specification that something is about
	Again  bool     `json:"again,omitempty"`  // of an answer: it had been answered; of passwords and sheets: whatever another device changed
	Keep   bool     `json:"keep,omitempty"`   // a revocation that rotates nothing
	Cut    bool     `json:"cut,omitempty"`    // the device's process was ended on the way
	Items  []Item   `json:"items,omitempty"`  // of a read; of contacts: what is kept; of a sync: what the device has then; of an adoption: what it was shown before
	Attack string   `json:"attack,omitempty"` // of a replay or a forgery: what kind; of others: why, or which
}

// Terms of a grant. Durations are nanoseconds.
type Terms struct {
	Purpose string        `json:"purpose,omitempty"`
	Limit   int           `json:"limit,omitempty"` // releases per UTC day
	From    time.Duration `json:"from,omitempty"`  // begins so long after the event's start
	For     time.Duration `json:"for,omitempty"`   // lasts so long; 0: longer than any trace
	Custody string        `json:"custody,omitempty"`
	Waits   time.Duration `json:"waits,omitempty"` // of a request: how long it may be answered
}

// Item is one outcome of a read.
type Item struct {
	Owner   string `json:"owner"`
	Field   string `json:"field"`
	Author  string `json:"author,omitempty"` // who wrote it, if not the owner
	Known   uint64 `json:"known,omitempty"`  // the version that the reader said it has
	By      string `json:"by,omitempty"`     // whose version that is, if not the owner's
	Result  string `json:"result"`           // "released", "unchanged", or why not
	Version uint64 `json:"version,omitempty"`
	Number  int    `json:"number,omitempty"` // found in the value
	At      int64  `json:"at,omitempty"`     // the vault's time, Unix milliseconds: items of one answer have the same
}

// author is who wrote an item.
func (it *Item) author() string { return cmp.Or(it.Author, it.Owner) }

// grants reports whether an owner's operation lets a reader read, as a denial does not, and revokes whether it ends that.
func (e *Event) grants() bool { return e.Do == Grant || e.Do == Answer && len(e.Fields) > 0 }

// lets reports whether an owner's operation lets somebody write its fields.
func (e *Event) lets(writer string) bool {
	return e.Do == GrantWrite && e.Reader == writer || e.Do == Answer && e.Source == writer && len(e.Fields) > 0
}

// letsWrite reports whether it lets anybody.
func (e *Event) letsWrite() bool {
	return e.Do == GrantWrite || e.Do == Answer && e.Source != "" && len(e.Fields) > 0
}

// deposits reports whether a write carries out an order.
func (e *Event) deposits() bool { return e.Do == Write && e.Attack == "deposit" }

func (e *Event) revokes() bool { return e.Do == Revoke || e.Do == Stop }

// owner is whose device or session it is.
func (e *Event) owner() string {
	if i := strings.IndexByte(e.Who, '/'); i >= 0 {
		return e.Who[:i]
	}
	return e.Who
}

// String is the event for people.
func (e *Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "line %d: %s %s", e.Line, e.Who, e.Do)
	for _, word := range append([]string{e.Reader, e.To, e.Owner, e.Source, e.Attack}, e.Fields...) {
		if word != "" {
			b.WriteString(" " + word)
		}
	}
	if e.Number != 0 {
		fmt.Fprintf(&b, " #%d", e.Number)
	}
	fmt.Fprintf(&b, " -> %s", e.Result)
	if e.Said != "" {
		fmt.Fprintf(&b, " (%s)", e.Said)
	}
	for _, it := range e.Items {
		fmt.Fprintf(&b, "; %s:%s %s", it.Owner, it.Field, it.Result)
		if it.Number != 0 {
			fmt.Fprintf(&b, " #%d version %d", it.Number, it.Version)
		}
		if it.Author != "" {
			b.WriteString(" by " + it.Author)
		}
	}
	return b.String()
}

// WriteTrace writes events as lines of JSON.
func WriteTrace(w io.Writer, events []Event) error {
	for i := range events {
		line, err := json.Marshal(&events[i])
		if err != nil {
			return err
		}
		if _, err := w.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// ReadTrace reads what WriteTrace wrote.
func ReadTrace(r io.Reader) ([]Event, error) {
	var out []Event
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e Event
		d := json.NewDecoder(strings.NewReader(lines.Text()))
		d.DisallowUnknownFields()
		if err := d.Decode(&e); err != nil {
			return nil, fmt.Errorf("line %d of the trace: %w", len(out)+1, err)
		}
		out = append(out, e)
	}
	return out, lines.Err()
}
