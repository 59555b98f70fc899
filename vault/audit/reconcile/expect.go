package reconcile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/audit"
)

// A want is one operation that an entry of the key-use log demands, or, if it is optional, accounts for.
type want struct {
	class     Class
	key       key
	generator bool
	entry     uint64
	at        time.Time // of the entry
	what      string    // in words
	before    bool      // the operation comes before its entry
	open      bool      // it may have come at any time before its entry
	optional  bool
	erased    bool // which key it is was erased with the entry's body
}

// grant is what the log told of a grant.
type grant struct {
	custody policies.Custody
	fields  []policies.GrantedField
	checked bool // the log has check values of its keys
}

// expectation collects what the log demands of the token.
type expectation struct {
	detail  detail
	clock   bool // the token's record has one
	wants   []*want
	grants  map[policies.DocumentID]*grant
	uses    map[uint64][]*want // by the index of a use
	imports map[uint64][]*want // by the index of an import
	ends    map[uint64][]*want // by the index of an entry of sealing
	sealed  int                // keys of custody sealed in force

	size      int64
	stack     []tlog.Hash // roots of the full subtrees so far
	roots     map[int64]tlog.Hash
	first     time.Time
	last      time.Time
	genesis   time.Time
	kinds     map[evidence.Kind]uint64
	forms     int // derives of a light probe that succeed besides the canary
	running   bool
	recent    []*want // of uses since the last start
	erasures  []time.Time
	hunts     []time.Time // ends of keys that were not where they should be: every key of the token was asked whether it is the one
	starts    int
	loads     int // uses that may have loaded their key
	abandoned int
	unread    uint64
}

func newExpectation(d detail, clock bool) *expectation {
	return &expectation{
		detail: d, clock: clock, grants: map[policies.DocumentID]*grant{}, uses: map[uint64][]*want{}, imports: map[uint64][]*want{}, ends: map[uint64][]*want{},
		roots: map[int64]tlog.Hash{}, kinds: map[evidence.Kind]uint64{},
	}
}

// keyID is the name of a re-encryption key in the token.
func keyID(g policies.DocumentID, f policies.Field, a policies.AuthorID) string {
	sum := sha256.Sum256(policies.Encode("key-id", g[:], []byte(f), a[:]))
	return hex.EncodeToString(sum[:])
}

func (x *expectation) demand(w want) *want {
	p := new(want)
	*p = w
	x.wants = append(x.wants, p)
	return p
}

// graft adds a leaf to the tree, and keeps its root if the token signed a tree of that size.
func (x *expectation) graft(leaf []byte) {
	h := tlog.RecordHash(leaf)
	for n := x.size; n&1 == 1; n >>= 1 {
		h = tlog.NodeHash(x.stack[len(x.stack)-1], h)
		x.stack = x.stack[:len(x.stack)-1]
	}
	x.stack = append(x.stack, h)
	x.size++
	if _, asked := x.roots[x.size]; asked {
		root := x.stack[len(x.stack)-1]
		for i := len(x.stack) - 2; i >= 0; i-- {
			root = tlog.NodeHash(x.stack[i], root)
		}
		x.roots[x.size] = root
	}
}

// add takes one entry.
func (x *expectation) add(r *audit.Record) error {
	if int64(r.Index) != x.size {
		return fmt.Errorf("entry %d: the log is to be read from its first entry, in order", r.Index)
	}
	x.graft(r.Leaf)
	if x.first.IsZero() {
		x.first = r.Time
	}
	x.last = r.Time
	x.kinds[r.Entry.Kind]++
	d := new(evidence.Details)
	if r.Opening != nil {
		var err error
		if d, err = r.Details(); err != nil {
			return err
		}
	}
	erased := r.Opening == nil
	if erased {
		switch r.Entry.Kind {
		case evidence.EntryUse, evidence.EntryImport, evidence.EntryDestroyed, evidence.EntrySealing, evidence.EntryFailed, evidence.EntryStart:
			x.unread++
		}
	}
	switch r.Entry.Kind {
	case evidence.EntryGenesis:
		x.genesis = r.Time
	case evidence.EntryStart:
		x.start(r, d)
	case evidence.EntryStop:
		x.running, x.recent = false, nil
	case evidence.EntryUse:
		if r.Entry.Outcome == policies.CodeReleased {
			x.use(r, d, erased)
		}
	case evidence.EntryImport:
		if erased {
			x.erasures = append(x.erasures, r.Time)
			return nil
		}
		return x.bring(r, d)
	case evidence.EntryGrant:
		if g := x.grants[d.Grant]; g != nil {
			g.checked = len(d.Checks) > 0
		}
	case evidence.EntryFailed:
		for _, of := range []map[uint64][]*want{x.uses, x.imports, x.ends} {
			for _, w := range of[d.Index] {
				w.optional = true
			}
		}
		if g := x.grants[d.Grant]; g != nil && g.custody != policies.CustodySealed {
			for _, f := range g.fields { // none of its keys stays
				x.demand(want{class: Destroy, key: key{reencryption, keyID(d.Grant, f.Field, f.Author)}, entry: r.Index, at: r.Time, what: "the end of a failed import", optional: true})
			}
		} else if g != nil && x.imports[d.Index] != nil {
			x.sealed -= len(g.fields)
		}
	case evidence.EntryDestroyed:
		x.destroyed(r, d, erased)
	case evidence.EntrySealing:
		x.moved(r, d)
	}
	return nil
}

// start: the light probe, and what a vault that did not stop in good order may have left undone.
func (x *expectation) start(r *audit.Record, d *evidence.Details) {
	var found struct {
		Derives []struct {
			Works bool   `json:"works"`
			Got   string `json:"got"`
		} `json:"derives"`
		Points []struct {
			Refused bool `json:"refused"`
		} `json:"points"`
	}
	if json.Unmarshal([]byte(d.Note), &found) == nil {
		x.forms = 0
		for _, f := range found.Derives {
			if f.Works || f.Got == "a wrong value" {
				x.forms++
			}
		}
		for _, p := range found.Points {
			if !p.Refused {
				x.forms++
			}
		}
	}
	if x.running {
		for _, w := range x.recent {
			if w.at.Add(undone).After(x.recent[len(x.recent)-1].at) {
				w.optional = true
				x.abandoned++
			}
		}
	}
	x.running, x.recent = true, nil
	if x.starts++; x.detail < named {
		probes := 1
		if x.starts == 1 && !x.clock {
			probes = 2 // creating the log opened the token too; with a clock that is known to be before the log
		}
		for range probes * x.forms {
			x.demand(want{class: Derive, entry: r.Index, at: r.Time, what: "the light probe", before: true})
		}
	}
}

// undone is how long before the end of a vault that did not stop in good order a recorded use may not have been carried out.
const undone = 30 * time.Second

// use: one derive, not on the generator.
func (x *expectation) use(r *audit.Record, d *evidence.Details, erased bool) {
	w := want{class: Derive, entry: r.Index, at: r.Time, what: "a use", erased: erased}
	sealedKey := d.Custody == policies.CustodySealed
	if sealedKey {
		w.key.kind = loaded
	} else {
		w.key = key{reencryption, keyID(d.Grant, d.Field, d.Author)}
	}
	wants := []*want{x.demand(w)}
	x.uses[r.Index] = wants
	x.recent = append(x.recent, wants...)
	if sealedKey || erased {
		x.loads++
		x.demand(want{class: Unwrap, key: key{kind: sealing}, entry: r.Index, at: r.Time, what: "loading a sealed key for a use", optional: true})
	}
}

// bring: an import, key by key.
func (x *expectation) bring(r *audit.Record, d *evidence.Details) error {
	e, err := envelope.Parse(r.Document)
	if err != nil {
		return fmt.Errorf("entry %d: the grant beside the import: %w", r.Index, err)
	}
	doc, err := policies.Decode[policies.Grant](e)
	if err != nil {
		return fmt.Errorf("entry %d: the grant beside the import: %w", r.Index, err)
	}
	x.grants[doc.ID] = &grant{custody: doc.Custody, fields: doc.Fields}
	var wants []*want
	add := func(n int, class Class, k key, onGenerator bool, what string) {
		for range n {
			wants = append(wants, x.demand(want{class: class, key: k, generator: onGenerator, entry: r.Index, at: r.Time, what: what}))
		}
	}
	for _, f := range doc.Fields {
		if doc.Custody == policies.CustodySealed {
			x.sealed++
			add(1, Unwrap, key{kind: importSealed}, false, "an import")
			add(1, Wrap, key{kind: sealing}, false, "sealing an imported key")
			add(1, Unwrap, key{kind: sealing}, false, "loading a key that was just sealed")
			add(2, Derive, key{kind: loaded}, true, "the canaries of an import")
			continue
		}
		id := keyID(doc.ID, f.Field, f.Author)
		add(1, Unwrap, key{reencryption, id}, false, "an import")
		add(2, Derive, key{reencryption, id}, true, "the canaries of an import")
	}
	x.imports[r.Index] = wants
	return nil
}

// destroyed: the end of keys. One of custody sealed leaves the vault's database, of which the token knows nothing.
func (x *expectation) destroyed(r *audit.Record, d *evidence.Details, erased bool) {
	lost := d.Note != "" // "n not in the token", "n under another name"
	if lost {
		x.hunts = append(x.hunts, r.Time)
	}
	for _, item := range d.Items {
		g := x.grants[item.Grant]
		if g != nil && g.custody == policies.CustodySealed {
			x.sealed--
			continue
		}
		id := keyID(item.Grant, item.Field, item.Author)
		if g != nil && g.checked && !lost {
			x.demand(want{class: Derive, key: key{reencryption, id}, generator: true, entry: r.Index, at: r.Time,
				what: "a look at whether it is the key that was granted", before: true})
		}
		x.demand(want{class: Destroy, key: key{reencryption, id}, entry: r.Index, at: r.Time,
			what: "the end of a key", before: true, optional: lost || g == nil && d.Custody == policies.CustodySealed})
	}
	if erased || len(d.Items) == 0 { // or of a closed account, whose last entry names none
		x.erasures = append(x.erasures, r.Time)
	}
}

// moved: the end of a sealing key, before which every key under it went to the newest. If the move was broken off and went on, the entry counts the last part
// of it, so up to as many as are in force are accounted for.
func (x *expectation) moved(r *audit.Record, d *evidence.Details) {
	x.ends[r.Index] = []*want{x.demand(want{class: Destroy, key: key{kind: sealing}, entry: r.Index, at: r.Time, what: "the end of a sealing key"})}
	for i := range max(int(min(d.Count, 1<<24)), x.sealed) {
		w := want{entry: r.Index, at: r.Time, what: "moving a key to the newest sealing key", before: true, open: true, optional: i >= int(d.Count)}
		for class, n := range map[Class]int{Unwrap: 2, Wrap: 1, Derive: 2} {
			w.class, w.key, w.generator = class, key{kind: sealing}, false
			if class == Derive {
				w.key, w.generator = key{kind: loaded}, true
			}
			for range n {
				x.demand(w)
			}
		}
	}
}
