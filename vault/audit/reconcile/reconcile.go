package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/audit"
)

// Options say how closely two clocks are taken.
type Options struct {
	// Window is how long after its entry an operation may come. Zero: a minute, twice what the vault waits for a token.
	Window time.Duration
	// Skew is how far the token's clock may be off. Zero: two seconds.
	Skew time.Duration
}

// Default values of Options.
const (
	DefaultWindow = time.Minute
	DefaultSkew   = 2 * time.Second
)

// What a finding says.
const (
	Unlogged = "operation without an entry"
	Unmade   = "entry without an operation"
	Forged   = "signature over what is not in this log"
	Unsure   = "not checkable: erased"
	Mixed    = "not comparable: mixed lines" // of threads, in the token's record
)

// A Finding is something that is left over.
type Finding struct {
	What   string    `json:"what"`
	Class  Class     `json:"class,omitzero"` // none where lines of several calls are mixed
	Entry  *uint64   `json:"entry,omitzero"` // index in the key-use log
	Place  string    `json:"place,omitzero"` // in the token's record
	Time   time.Time `json:"time,omitzero"`
	Key    string    `json:"key,omitzero"`
	Reason string    `json:"reason"`
}

// A Row sums up one class.
type Row struct {
	Class      Class  `json:"class"`
	Operations uint64 `json:"operations"`        // of the token that succeeded
	Failed     uint64 `json:"failed,omitzero"`   // that did not, and need no entry
	Excused    uint64 `json:"excused,omitzero"`  // that have no entry, by the table
	Demanded   uint64 `json:"demanded,omitzero"` // by entries
	Mixed      uint64 `json:"mixed,omitzero"`    // of the operations: by which key is not told, so they are compared by time and number
	Unlogged   uint64 `json:"unlogged"`
	Unmade     uint64 `json:"unmade"`
}

// maxFindings bounds the findings that a report lists; counts are of all.
const maxFindings = 1000

// A Report is what came of it. Nothing is left over if there are no findings.
type Report struct {
	Format     string            `json:"format"`
	Clean      bool              `json:"clean"`
	Entries    uint64            `json:"entries"`
	From       time.Time         `json:"from,omitzero"` // of the log
	To         time.Time         `json:"to,omitzero"`
	TokenFrom  time.Time         `json:"token_from,omitzero"` // of the token's record
	TokenTo    time.Time         `json:"token_to,omitzero"`
	Outside    uint64            `json:"outside,omitzero"` // operations that entries outside of the token's record demand
	Abandoned  uint64            `json:"abandoned,omitzero"`
	Erased     uint64            `json:"erased,omitzero"` // entries whose details were erased
	Signatures uint64            `json:"signatures"`      // of the log key, each over a beginning of this log
	Rows       []Row             `json:"rows"`
	Counts     map[string]uint64 `json:"counts"` // of all findings
	Findings   []Finding         `json:"findings,omitzero"`
	Calls      map[string]uint64 `json:"calls"`
	Notes      []string          `json:"notes"`
}

// Reconcile compares a token's record with the whole log, all of whose leaves are held against its signed root. An error says that there is no result: the log
// cannot be read, or is not what was signed.
func Reconcile(ctx context.Context, token *Token, log *audit.Log, o Options) (*Report, error) {
	tree := tlog.Tree{N: int64(log.Checkpoint.Size), Hash: tlog.Hash(log.Checkpoint.Root)}
	return reconcile(token, log.Records(ctx, 0, log.Checkpoint.Size), tree, log.Document.LogKey.Name, o)
}

// reconcile is Reconcile for entries that make a tree, of a log with an origin.
func reconcile(token *Token, entries iter.Seq2[*audit.Record, error], tree tlog.Tree, origin string, o Options) (*Report, error) {
	if o.Window <= 0 {
		o.Window = DefaultWindow
	}
	if o.Skew <= 0 {
		o.Skew = DefaultSkew
	}
	m := &matching{token: token, origin: origin, options: &o, x: newExpectation(token.detail, !token.first.IsZero()), report: &Report{
		Format: token.format, TokenFrom: token.first, TokenTo: token.last, Calls: maps.Clone(token.calls), Counts: map[string]uint64{},
		Notes: slices.Clone(token.notes),
	}}
	m.signatures()
	m.x.roots[tree.N] = tlog.Hash{}
	for r, err := range entries {
		if err != nil {
			return nil, err
		}
		if err := m.x.add(r); err != nil {
			return nil, err
		}
	}
	if m.x.size == 0 {
		return nil, errors.New("the key-use log is empty")
	}
	if m.x.size != tree.N || m.x.roots[tree.N] != tree.Hash {
		return nil, errors.New("the entries are not those that the token signed: `sallyport audit verify` says where")
	}
	m.tangles()
	m.checkSignatures()
	m.compare()
	return m.finish(), nil
}

// matching is a comparison under way.
type matching struct {
	token   *Token
	origin  string
	options *Options
	x       *expectation
	report  *Report
	signed  map[int64][]signedTree
	rows    map[Class]*Row
}

// signedTree is a checkpoint that the token was asked to sign.
type signedTree struct {
	op   *operation
	root tlog.Hash
}

func (m *matching) row(c Class) *Row {
	if m.rows == nil {
		m.rows = map[Class]*Row{}
	}
	if m.rows[c] == nil {
		m.rows[c] = &Row{Class: c}
	}
	return m.rows[c]
}

func (m *matching) find(f Finding) {
	m.report.Counts[f.What]++
	m.report.Findings = append(m.report.Findings, f)
}

// compare gives operations to entries, bin by bin.
func (m *matching) compare() {
	wants, ops, vague := map[string][]*want{}, map[string][]*operation{}, map[Class][]*operation{}
	for _, o := range m.token.ops {
		row := m.row(o.class)
		row.Operations++
		if o.class == Sign && !m.vague(o) && (o.key.kind == logKey || m.token.detail < named) {
			continue // see checkSignatures
		}
		if m.excused(o) {
			row.Excused++
			continue
		}
		if m.vague(o) {
			row.Mixed++
			vague[o.class] = append(vague[o.class], o)
			continue
		}
		b := m.bin(o.class, m.of(o), o.generator)
		ops[b] = append(ops[b], o)
	}
	for class, n := range m.token.failed {
		m.row(class).Failed = n
	}
	var erased []*want
	for _, w := range slices.Concat(m.x.wants, m.ownCanaries()) {
		if m.token.detail < named && w.class == Destroy {
			continue // derived values are destroyed too, and nothing tells them apart
		}
		row := m.row(w.class)
		if !w.optional {
			row.Demanded++
		}
		if !m.token.first.IsZero() && (w.at.Before(m.token.first) || w.at.After(m.token.last)) {
			if !w.optional {
				m.report.Outside++
			}
			w.optional = true
		}
		if w.erased && m.token.detail == named {
			erased = append(erased, w)
			continue
		}
		b := m.bin(w.class, w.key, w.generator)
		wants[b] = append(wants[b], w)
	}
	pairs := map[Class][]*pair{}
	var surplus, unnamed []*operation
	for _, b := range slices.Sorted(maps.Keys(union(wants, ops))) {
		some, extra := match(wants[b], ops[b], m.options)
		for _, p := range some {
			pairs[p.w.class] = append(pairs[p.w.class], p)
		}
		for _, o := range extra {
			if o.class == Derive && !o.generator && len(erased) > 0 {
				unnamed = append(unnamed, o)
			} else {
				surplus = append(surplus, o)
			}
		}
	}
	// What was used is erased with a body; that something was is not.
	some, extra := match(erased, unnamed, m.options)
	pairs[Derive] = append(pairs[Derive], some...)
	surplus = append(surplus, extra...)
	for _, class := range classes {
		m.toldVague(vague[class], spread(pairs[class], vague[class], m.fits))
		m.told(missing(pairs[class]), nil)
	}
	m.told(nil, surplus)
}

// vague tells whether it is not known, because of mixed lines, what an operation is to be compared with.
func (m *matching) vague(o *operation) bool {
	return o.mixed || m.token.detail == named && o.vague()
}

// fits tells whether an operation may be the one that is wanted, by what is known of it.
func (m *matching) fits(o *operation, w *want) bool {
	switch {
	case o.class != w.class:
		return false
	case o.mixed:
		return true
	case m.vague(o):
		return o.class != Derive || o.generator == w.generator
	case w.erased && m.token.detail == named:
		return !o.generator
	}
	return m.bin(o.class, m.of(o), o.generator) == m.bin(w.class, w.key, w.generator)
}

// tangles makes a finding of each run of mixed lines. Whatever comes of the numbers, it was not compared which key each of its calls was of.
func (m *matching) tangles() {
	for _, t := range m.token.tangles {
		var names []string
		n := 0
		for _, name := range slices.Sorted(maps.Keys(t.functions)) {
			names = append(names, fmt.Sprintf("%d %s", t.functions[name], name))
			n += t.functions[name]
		}
		m.find(Finding{What: Mixed, Place: fmt.Sprintf("lines %d to %d", t.from, t.to), Time: t.at,
			Reason: fmt.Sprintf("%d calls were under way side by side, and their lines are mixed (%s): which key each of them was of is not compared, only how many there are", n, strings.Join(names, ", "))})
	}
}

// toldVague makes findings of operations of which mixed lines do not tell the key, surplus among them. A use that is too many by number is one without an
// entry, whichever key it was of. That of what is otherwise excused for some keys cannot be said.
func (m *matching) toldVague(all, surplus []*operation) {
	extra := map[*operation]bool{}
	for _, o := range surplus {
		extra[o] = true
	}
	for _, o := range all {
		uses := o.class == Derive || o.class == Unwrap || o.class == Wrap
		if uses && !o.maybe && extra[o] && !m.near(o, m.x.hunts) && !m.near(o, m.x.erasures) {
			m.row(o.class).Unlogged++
			m.find(Finding{What: Unlogged, Class: o.class, Place: o.place, Time: o.at, Reason: o.function + ": the log has too few entries at that time for this one to have one. " +
				"Which key it was of is lost in mixed lines; one of a key pair that ended with its session, or one that failed, would need none"})
			continue
		}
		if !o.mixed { // the others are in the finding of their lines
			m.find(Finding{What: Mixed, Class: o.class, Place: o.place, Time: o.at, Reason: o.function + ": mixed lines before it do not tell which key it was of"})
		}
	}
}

func union[A, B any](a map[string]A, b map[string]B) map[string]bool {
	all := map[string]bool{}
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return all
}

// told makes findings of what is left over.
func (m *matching) told(missing []*want, surplus []*operation) {
	for _, w := range missing {
		m.row(w.class).Unmade++
		f := Finding{What: Unmade, Class: w.class, Entry: &w.entry, Time: w.at, Reason: fmt.Sprintf("the entry stands for %s, which is not in the token's record", w.what)}
		if w.key.kind != unknown {
			f.Key = w.key.String()
		}
		m.find(f)
	}
	for _, o := range surplus {
		if o.class == Derive && o.generator && m.near(o, m.x.hunts) {
			m.row(o.class).Excused++
			continue
		}
		if m.unsure(o) {
			m.find(Finding{What: Unsure, Class: o.class, Place: o.place, Time: o.at, Key: o.named(), Reason: "an entry of about that time may stand for it, whose details were erased"})
			continue
		}
		m.row(o.class).Unlogged++
		f := Finding{What: Unlogged, Class: o.class, Place: o.place, Time: o.at, Key: o.named(), Reason: o.function + ": no entry of the key-use log stands for it"}
		switch {
		case !o.at.IsZero() && o.at.After(m.x.last):
			f.Reason += "; it is after the last entry: fetch the log again if that may be why"
		case o.cut:
			f.Reason += "; its process ended without C_Finalize, so it may have been asked twice: see when and why that worker ended"
		}
		m.find(f)
	}
}

// unsure tells whether an import or end whose details were erased may account for an operation. A use it cannot: that has an entry of its own.
func (m *matching) unsure(o *operation) bool {
	if o.class == Derive && !o.generator && m.token.detail >= canaries {
		return false
	}
	return m.near(o, m.x.erasures)
}

// near tells whether an operation may be of about one of some times.
func (m *matching) near(o *operation, times []time.Time) bool {
	return slices.ContainsFunc(times, func(at time.Time) bool {
		return o.at.IsZero() || o.at.After(at.Add(-m.options.Window)) && o.at.Before(at.Add(m.options.Window))
	})
}

// of is the key by which an operation is compared: a new key by the key itself.
func (m *matching) of(o *operation) key {
	switch {
	case o.class == Destroy || o.class == Generate || o.class == Create || o.class == Change:
		return o.subject
	case o.class == Unwrap && o.subject.kind == reencryption:
		return o.subject
	}
	return o.key
}

func (o *operation) named() string {
	k := o.key
	if k.kind == unknown || o.class == Unwrap && o.subject.kind == reencryption {
		k = o.subject
	}
	if k.kind == unknown {
		return ""
	}
	return k.String()
}

// bin is what is compared with what.
func (m *matching) bin(class Class, k key, onGenerator bool) string {
	if m.token.detail == merged && (class == Derive || class == Unwrap || class == Wrap) {
		return "use of a key"
	}
	parts := []string{string(class)}
	if m.token.detail >= canaries && class == Derive && onGenerator {
		parts = append(parts, "on the generator")
	}
	if m.token.detail == named {
		parts = append(parts, string(k.kind), k.id)
	}
	return strings.Join(parts, "|")
}

// excused tells whether an operation needs no entry. The reasons are in the table.
func (m *matching) excused(o *operation) bool {
	if m.ceremony(o) && o.class != Sign && o.key.kind != reencryption && o.subject.kind != reencryption {
		return true // before the log there is no re-encryption key
	}
	if m.token.detail < named {
		switch o.class {
		case Generate, Create, Destroy, Decrypt, Encrypt:
			return true
		}
		return false
	}
	switch o.class {
	case Derive, Unwrap, Sign, Encrypt:
		return o.key.kind == own
	case Decrypt:
		return o.key.kind == own || o.key.kind == storeKey
	case Wrap:
		return o.subject.kind == own
	case Generate:
		return o.subject.kind == own || o.subject.kind == sealing
	case Create, Destroy:
		switch o.subject.kind {
		case own, stateObject:
			return true
		case derived, loaded:
			return o.class == Destroy
		}
		return false
	case Change:
		return o.subject.kind == own || o.subject.kind == derived
	}
	return false
}

// ceremony tells whether an operation was before the log.
func (m *matching) ceremony(o *operation) bool { return !o.at.IsZero() && o.at.Before(m.x.genesis) }

// ownCanaries are the derives by which each process of the vault tries the key pair that it makes when it opens the token, where nothing
// tells them from others.
func (m *matching) ownCanaries() (out []*want) {
	if m.token.detail == named {
		return nil
	}
	for _, o := range m.token.ops {
		if o.class == Generate && !m.ceremony(o) {
			at := o.at
			if at.IsZero() {
				at = m.x.first
			}
			out = append(out, &want{class: Derive, generator: true, at: at, what: "the canary of a process that opens the token", optional: true})
		}
	}
	return out
}

// signatures reads the checkpoints that the token signed.
func (m *matching) signatures() {
	m.signed = map[int64][]signedTree{}
	for _, o := range m.token.ops {
		if o.class != Sign || o.mixed || m.token.detail < canaries || m.token.detail == named && o.key.kind != logKey {
			continue
		}
		tree, ok := parseTree(string(o.message), m.origin)
		if !ok {
			m.row(Sign).Unlogged++
			m.find(Finding{What: Forged, Class: Sign, Place: o.place, Time: o.at, Key: string(logKey), Reason: "the log key signed what is no checkpoint of this log"})
			continue
		}
		m.signed[tree.N] = append(m.signed[tree.N], signedTree{o, tree.Hash})
		m.x.roots[tree.N] = tlog.Hash{}
	}
}

// parseTree reads the text of a checkpoint: origin, size and root, a line each.
func parseTree(text, origin string) (tlog.Tree, bool) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" || lines[0] != origin {
		return tlog.Tree{}, false
	}
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + lines[1] + "\n" + lines[2] + "\n"))
	return tree, err == nil
}

// checkSignatures: every tree that the token signed must be a beginning of this log, and the last of them all of it. Where the record has no messages only
// their number is looked at: one covers at least one entry, or opens the log.
func (m *matching) checkSignatures() {
	empty, _ := tlog.TreeHash(0, nil)
	last := int64(-1)
	for _, size := range slices.Sorted(maps.Keys(m.signed)) {
		for _, s := range m.signed[size] {
			root := m.x.roots[size]
			if size == 0 {
				root = empty
			}
			switch {
			case size > m.x.size:
				m.row(Sign).Unlogged++
				m.find(Finding{What: Forged, Class: Sign, Place: s.op.place, Time: s.op.at, Key: string(logKey),
					Reason: fmt.Sprintf("the token signed a tree of %d entries, and this log has %d: fetch it again, or entries are gone", size, m.x.size)})
			case root != s.root:
				m.row(Sign).Unlogged++
				m.find(Finding{What: Forged, Class: Sign, Place: s.op.place, Time: s.op.at, Key: string(logKey),
					Reason: fmt.Sprintf("the token signed a tree of %d entries that is not the beginning of this log: there is another log", size)})
			default:
				m.report.Signatures++
				last = max(last, size)
			}
		}
	}
	if m.token.detail >= canaries {
		if covers := m.token.last.IsZero() || !m.x.last.After(m.token.last); covers && last < m.x.size && !m.signsVaguely() {
			m.row(Sign).Unmade++
			index := uint64(max(last, 0))
			m.find(Finding{What: Unmade, Class: Sign, Entry: &index, Reason: "the token's record has no signature that covers this entry and those after it"})
		}
		return
	}
	var signs uint64
	for _, o := range m.token.ops {
		if o.class == Sign {
			signs++
		}
	}
	if most := uint64(m.x.size) + 2*uint64(m.x.starts+1); signs > most {
		m.row(Sign).Unlogged += signs - most
		m.find(Finding{What: Unlogged, Class: Sign, Reason: fmt.Sprintf("%d signatures: %d entries and %d starts stand for %d at most", signs, m.x.size, m.x.starts, most)})
	}
	m.report.Signatures = signs
}

// signsVaguely tells whether a signature that mixed lines hide may cover the end of the log. They have a finding already.
func (m *matching) signsVaguely() bool {
	return slices.ContainsFunc(m.token.ops, func(o *operation) bool {
		return o.class == Sign && m.vague(o) && !o.at.Before(m.x.last.Add(-m.options.Skew))
	})
}

func (m *matching) finish() *Report {
	r := m.report
	r.Entries, r.From, r.To = uint64(m.x.size), m.x.first, m.x.last
	r.Abandoned, r.Erased = uint64(m.x.abandoned), m.x.unread
	for _, c := range classes {
		if row := m.rows[c]; row != nil {
			r.Rows = append(r.Rows, *row)
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(a.Time.Compare(b.Time), strings.Compare(string(a.Class), string(b.Class)))
	})
	r.Clean = len(r.Findings) == 0
	r.Findings = r.Findings[:min(len(r.Findings), maxFindings)]
	if m.x.loads > 0 && m.token.detail == merged {
		r.Notes = append(r.Notes, fmt.Sprintf("%d uses in custody sealed may each have loaded their key or not, and this record does not tell loads from uses: up to that many unlogged ones would not show.", m.x.loads))
	}
	if m.x.kinds[evidence.EntryImport] > 0 && m.token.detail < named {
		r.Notes = append(r.Notes, "This record does not tell which key was used, nor which object was destroyed: uses are compared by time and number.")
	}
	return r
}
