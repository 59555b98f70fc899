package views

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/policies/writing"
	"github.com/sallyport/sallyport/vault/audit"
)

// ErrIndex: the index is damaged, or of another version. Delete its folder; the next update makes it anew.
var ErrIndex = errors.New("the index is damaged; delete its folder, and it is made anew")

// format is the version of the files. Another one is made anew.
const format = 2

// blockRows is how many rows a checksum covers, and how many a query reads at once.
const blockRows = 1 << 16

// A column is a file of numbers, one for each entry of the log.
type column int

const (
	colTime    column = iota // Unix milliseconds; never decreasing
	colKind                  // into words
	colOutcome               // into words
	colOwner                 // into parties
	colReader                // into parties, or several
	colField                 // into words, or several
	columns
)

var layout = [columns]struct {
	name  string
	width int // bytes a row, little-endian
}{{"time", 8}, {"kind", 1}, {"outcome", 1}, {"owner", 4}, {"reader", 4}, {"field", 4}}

// several in a column: the entry speaks of more than one, and the file "more" has them.
const several = 1<<32 - 1

// Lists are files that are read whole when they are needed, each with one checksum.
type list int

const (
	listMore   list = iota // u64 index, u32 column, u32 value: what several stands for
	listGrants             // 32 bytes id, u32 party: whom a grant lets read, for revocations, which name grants
	lists
)

var listLayout = [lists]struct {
	name  string
	width int
}{{"more", 16}, {"grants", 36}}

// state is what the columns hold. Everything beyond it in the files was never written, as far as anybody knows.
type state struct {
	Format     int    `json:"format"`
	Rows       uint64 `json:"rows"`
	Checkpoint string `json:"checkpoint"`
	Lists      [lists]struct {
		Rows uint64 `json:"rows"`
		Sum  uint32 `json:"sum"`
	} `json:"lists"`
	Kinds    []string          `json:"kinds"`
	Outcomes []string          `json:"outcomes"`
	Fields   []string          `json:"fields"`
	Parties  []Party           `json:"parties"` // place 0 is nobody
	Sums     [columns][]uint32 `json:"sums"`    // CRC-32C of each block of blockRows rows
	seen     map[string]uint32 // fields
	of       map[policies.Pseudonym]uint32
	by       map[policies.IdentityID]uint32
}

// Party is somebody of whom the log speaks.
type Party struct {
	Pseudonym policies.Pseudonym  `json:"pseudonym"`
	ID        policies.IdentityID `json:"id,omitzero"`   // zero if the log does not say, because the body of the enrolment is not there
	Kind      string              `json:"kind,omitzero"` // "person" or "business"
	Name      string              `json:"name,omitzero"` // what a business calls itself; nobody has verified it
}

// Index is an open index. Queries may run at once; an update alone.
type Index struct {
	dir   string
	files [columns]*os.File
	lists [lists]*os.File
	state state
}

// Open opens the index in a folder, and makes an empty one where there is none.
func Open(dir string) (*Index, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	x := &Index{dir: dir}
	text, err := os.ReadFile(filepath.Join(dir, "state"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		x.state = emptyState()
	case err != nil:
		return nil, err
	default:
		if x.state, err = parseState(text); err != nil {
			return nil, err
		}
	}
	for c := range x.files {
		if x.files[c], err = os.OpenFile(filepath.Join(dir, layout[c].name), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			_ = x.Close()
			return nil, err
		}
	}
	for l := range x.lists {
		if x.lists[l], err = os.OpenFile(filepath.Join(dir, listLayout[l].name), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			_ = x.Close()
			return nil, err
		}
	}
	return x, nil
}

// Close closes its files.
func (x *Index) Close() error {
	var errs []error
	for _, f := range slices.Concat(x.files[:], x.lists[:]) {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Rows is how many entries the index has.
func (x *Index) Rows() uint64 { return x.state.Rows }

// Parties are those of whom the log speaks.
func (x *Index) Parties() []Party { return x.state.Parties[1:] }

func emptyState() state {
	s := state{Format: format, Kinds: []string{}, Outcomes: []string{}, Fields: []string{""}, Parties: []Party{{}}}
	s.link()
	return s
}

// bytes is the state as its file has it: JSON, and a line with the CRC-32C of that in hexadecimal digits.
func (s *state) bytes() ([]byte, error) {
	text, err := json.Marshal(s)
	return fmt.Appendf(text, "\n%08x\n", sum(text)), err
}

// parseState reads a state that an earlier run wrote, and refuses what cannot be one.
func parseState(text []byte) (state, error) {
	var s state
	text, line, _ := bytes.Cut(text, []byte("\n"))
	if string(line) != fmt.Sprintf("%08x\n", sum(text)) {
		return s, fmt.Errorf("%w: state: its checksum is wrong, or it is of another version", ErrIndex)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("%w: state: %w", ErrIndex, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return s, fmt.Errorf("%w: state: something follows it", ErrIndex)
	}
	blocks := (s.Rows + blockRows - 1) / blockRows
	for c := range s.Sums {
		if s.Format == format && uint64(len(s.Sums[c])) != blocks {
			return s, fmt.Errorf("%w: state: %d checksums of column %s, want %d", ErrIndex, len(s.Sums[c]), layout[c].name, blocks)
		}
	}
	if s.Format != format || len(s.Kinds) > 256 || len(s.Outcomes) > 256 || len(s.Fields) == 0 || len(s.Parties) == 0 {
		return s, fmt.Errorf("%w: state: of another version, or not a state", ErrIndex)
	}
	s.link()
	return s, nil
}

// link makes the maps that go with the dictionaries.
func (s *state) link() {
	s.seen, s.of, s.by = map[string]uint32{}, map[policies.Pseudonym]uint32{}, map[policies.IdentityID]uint32{}
	for i, f := range s.Fields {
		s.seen[f] = uint32(i)
	}
	for i, p := range s.Parties {
		if i > 0 {
			s.of[p.Pseudonym] = uint32(i)
		}
		if !p.ID.IsZero() {
			s.by[p.ID] = uint32(i)
		}
	}
}

// Update adds what the log has gained. A log that does not continue the one the index was made from makes it begin anew, after it was shown to be
// signed by the same vault: that is a fork or a rollback, and anew is how many entries were thrown away for it. Nothing is believed that the log's checkpoint was not
// verified for; that the entries are those of its tree is for [audit.Log.Verify], which the caller owes.
func (x *Index) Update(ctx context.Context, log *audit.Log) (added, anew uint64, err error) {
	if x.state.Checkpoint != "" {
		if err := log.Consistent(ctx, x.state.Checkpoint); err != nil {
			if !errors.Is(err, audit.ErrDamaged) {
				return 0, 0, err
			}
			anew = x.state.Rows
			x.state = emptyState()
		}
	}
	w, err := x.writer()
	if err != nil {
		return 0, anew, err
	}
	for r, err := range log.Records(ctx, x.state.Rows, log.Checkpoint.Size) {
		if err == nil {
			err = w.add(r)
		}
		if err != nil {
			x.state.link() // the maps were the writer's too
			return 0, anew, err
		}
	}
	added = w.rows - x.state.Rows
	if err := w.finish(log.Note); err != nil {
		x.state.link()
		return 0, anew, err
	}
	return added, anew, nil
}

// writer appends rows. Until finish they are not part of the index.
type writer struct {
	x      *Index
	state  state // becomes the index's
	rows   uint64
	blocks [columns][]byte // of the block that is being filled, from its first row
	added  [lists][]byte   // not written yet
	grants map[policies.DocumentID]uint32
}

func (x *Index) writer() (*writer, error) {
	w := &writer{x: x, state: x.state, rows: x.state.Rows, grants: map[policies.DocumentID]uint32{}}
	grants, err := x.list(listGrants)
	if err != nil {
		return nil, err
	}
	for ; len(grants) > 0; grants = grants[36:] {
		w.grants[policies.DocumentID(grants[:32])] = binary.LittleEndian.Uint32(grants[32:])
	}
	first := w.rows / blockRows * blockRows
	for c := range w.blocks {
		width := layout[c].width
		w.blocks[c] = make([]byte, int(w.rows-first)*width, blockRows*width)
		if _, err := x.files[c].ReadAt(w.blocks[c], int64(first)*int64(width)); err != nil && len(w.blocks[c]) > 0 {
			return nil, fmt.Errorf("%w: column %s: %w", ErrIndex, layout[c].name, err)
		}
		full := w.rows / blockRows
		if full < uint64(len(w.state.Sums[c])) { // the unfinished block is summed again
			if sum(w.blocks[c]) != w.state.Sums[c][full] {
				return nil, fmt.Errorf("%w: column %s: the checksum of its last block is wrong", ErrIndex, layout[c].name)
			}
			w.state.Sums[c] = w.state.Sums[c][:full:full]
		}
	}
	return w, nil
}

func (w *writer) add(r *audit.Record) error {
	var d *evidence.Details
	if r.Opening != nil {
		var err error
		if d, err = r.Details(); err != nil {
			return err
		}
	} else {
		d = new(evidence.Details)
	}
	w.enrol(r, d)
	kind, err := word(&w.state.Kinds, string(r.Entry.Kind))
	if err != nil {
		return err
	}
	outcome, err := word(&w.state.Outcomes, string(r.Entry.Outcome))
	if err != nil {
		return err
	}
	owner := w.party(r.Entry.Owner)
	if owner == 0 && !d.Owner.IsZero() { // a stranger's attempt is in no owner's history, and yet about that owner
		owner = w.state.by[policies.IdentityID(d.Owner)]
	}
	w.append(colTime, uint64(r.Time.UnixMilli()))
	w.append(colKind, uint64(kind))
	w.append(colOutcome, uint64(outcome))
	w.append(colOwner, uint64(owner))
	w.append(colReader, uint64(w.readers(r, d)))
	w.append(colField, uint64(w.fields(r, d)))
	w.rows++
	if w.rows%blockRows == 0 {
		return w.flush()
	}
	return nil
}

func (w *writer) append(c column, v uint64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	w.blocks[c] = append(w.blocks[c], b[:layout[c].width]...)
}

// word is a word's place in a dictionary of at most 256, which kinds and outcomes are.
func word(words *[]string, s string) (byte, error) {
	for i, have := range *words {
		if have == s {
			return byte(i), nil
		}
	}
	if len(*words) == 256 {
		return 0, fmt.Errorf("the log has more than 256 kinds or outcomes, %q among them", s)
	}
	*words = append(*words, s)
	return byte(len(*words) - 1), nil
}

func (w *writer) party(p policies.Pseudonym) uint32 {
	if p.IsZero() {
		return 0
	}
	n, ok := w.state.of[p]
	if !ok {
		n = uint32(len(w.state.Parties))
		w.state.Parties = append(w.state.Parties, Party{Pseudonym: p})
		w.state.of[p] = n
	}
	return n
}

// enrol notes who an identity is.
func (w *writer) enrol(r *audit.Record, d *evidence.Details) {
	if r.Entry.Kind != evidence.EntryIdentity || d.Pseudo.IsZero() {
		return
	}
	n := w.party(d.Pseudo)
	p := &w.state.Parties[n]
	p.ID = policies.IdentityID(d.Document)
	w.state.by[p.ID] = n
	if e, err := envelope.Parse(r.Document); err == nil {
		if id, err := policies.Decode[policies.Identity](e); err == nil {
			p.Kind, p.Name = string(id.Kind), id.Name
		}
	}
}

// fields is what goes into colField.
func (w *writer) fields(r *audit.Record, d *evidence.Details) uint32 {
	var values []uint32
	for _, name := range fieldsOf(r, d) {
		values = append(values, w.field(name))
	}
	return w.one(r.Index, colField, values)
}

// readers is what goes into colReader. A revocation names grants, and not whom they let read.
func (w *writer) readers(r *audit.Record, d *evidence.Details) uint32 {
	if reader := w.party(r.Entry.Reader); reader != 0 {
		if _, known := w.grants[d.Grant]; !known && !d.Grant.IsZero() && r.Entry.Kind == evidence.EntryImport {
			w.grants[d.Grant] = reader
			w.added[listGrants] = binary.LittleEndian.AppendUint32(append(w.added[listGrants], d.Grant[:]...), reader)
		}
		return reader
	}
	var values []uint32
	for _, item := range d.Items {
		if reader, known := w.grants[item.Grant]; known && !slices.Contains(values, reader) {
			values = append(values, reader)
		}
	}
	return w.one(r.Index, colReader, values)
}

// one is the only value there is, or none, or several, which go into the list of more.
func (w *writer) one(index uint64, c column, values []uint32) uint32 {
	switch len(values) {
	case 0:
		return 0
	case 1:
		return values[0]
	}
	for _, v := range values {
		w.added[listMore] = binary.LittleEndian.AppendUint64(w.added[listMore], index)
		w.added[listMore] = binary.LittleEndian.AppendUint32(w.added[listMore], uint32(c))
		w.added[listMore] = binary.LittleEndian.AppendUint32(w.added[listMore], v)
	}
	return several
}

func (w *writer) field(f policies.Field) uint32 {
	n, ok := w.state.seen[string(f)]
	if !ok {
		n = uint32(len(w.state.Fields))
		w.state.Fields = append(w.state.Fields, string(f))
		w.state.seen[string(f)] = n
	}
	return n
}

// fieldsOf are the fields that an entry speaks of, each once.
func fieldsOf(r *audit.Record, d *evidence.Details) []policies.Field {
	var names []policies.Field
	add := func(f policies.Field) {
		for _, have := range names {
			if have == f {
				return
			}
		}
		names = append(names, f)
	}
	if d.Field != "" {
		add(d.Field)
	}
	for _, item := range d.Items {
		add(item.Field)
	}
	if len(r.Document) > 0 && (r.Entry.Kind == evidence.EntryImport || r.Entry.Kind == evidence.EntryGrant || r.Entry.Kind == evidence.EntryRevocation || r.Entry.Kind == evidence.EntryWriteGrant) {
		if e, err := envelope.Parse(r.Document); err == nil {
			if g, err := policies.Decode[policies.Grant](e); err == nil {
				for _, f := range g.Fields {
					add(f.Field)
				}
			} else if g, err := policies.Decode[writing.Grant](e); err == nil {
				for _, f := range g.Fields {
					add(f.Field)
				}
			} else if v, err := policies.Decode[policies.Revocation](e); err == nil {
				for _, item := range v.Items {
					add(item.Field)
				}
			}
		}
	}
	return names
}

// flush writes the block that is being filled, full or not.
func (w *writer) flush() error {
	rows := uint64(len(w.blocks[colKind]))
	if rows == 0 {
		return nil
	}
	first := (w.rows - 1) / blockRows * blockRows
	for c := range w.blocks {
		if _, err := w.x.files[c].WriteAt(w.blocks[c], int64(first)*int64(layout[c].width)); err != nil {
			return err
		}
		w.state.Sums[c] = append(w.state.Sums[c], sum(w.blocks[c]))
		w.blocks[c] = w.blocks[c][:0]
	}
	for l := range w.added {
		s, width := &w.state.Lists[l], listLayout[l].width
		if _, err := w.x.lists[l].WriteAt(w.added[l], int64(s.Rows)*int64(width)); err != nil {
			return err
		}
		s.Rows += uint64(len(w.added[l]) / width)
		s.Sum = crc32.Update(s.Sum, castagnoli, w.added[l])
		w.added[l] = w.added[l][:0]
	}
	return nil
}

// finish makes what was added part of the index.
func (w *writer) finish(checkpoint string) error {
	if err := w.flush(); err != nil {
		return err
	}
	for _, f := range slices.Concat(w.x.files[:], w.x.lists[:]) {
		if err := f.Sync(); err != nil {
			return err
		}
	}
	w.state.Rows, w.state.Checkpoint = w.rows, checkpoint
	text, err := w.state.bytes()
	if err != nil {
		return err
	}
	if err := replace(w.x.dir, "state", text); err != nil {
		return err
	}
	w.x.state = w.state
	return nil
}

// replace writes a file such that a crash leaves the old one or the new one.
func replace(dir, name string, content []byte) error {
	f, err := os.CreateTemp(dir, name+".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// block reads a block of a column, verified, into buf.
func (x *Index) block(c column, n uint64, buf []byte) ([]byte, error) {
	rows := min(x.state.Rows-n*blockRows, blockRows)
	width := uint64(layout[c].width)
	buf = buf[:rows*width]
	if _, err := x.files[c].ReadAt(buf, int64(n*blockRows*width)); err != nil {
		return nil, fmt.Errorf("%w: column %s: %w", ErrIndex, layout[c].name, err)
	}
	if sum(buf) != x.state.Sums[c][n] {
		return nil, fmt.Errorf("%w: column %s: the checksum of block %d is wrong", ErrIndex, layout[c].name, n)
	}
	return buf, nil
}

// list reads a list, verified.
func (x *Index) list(l list) ([]byte, error) {
	s := x.state.Lists[l]
	info, err := x.lists[l].Stat()
	if err != nil {
		return nil, err
	}
	if width := uint64(listLayout[l].width); s.Rows > uint64(info.Size())/width {
		return nil, fmt.Errorf("%w: list %s: it is too short", ErrIndex, listLayout[l].name)
	}
	b := make([]byte, s.Rows*uint64(listLayout[l].width))
	if _, err := x.lists[l].ReadAt(b, 0); err != nil && len(b) > 0 {
		return nil, fmt.Errorf("%w: list %s: %w", ErrIndex, listLayout[l].name, err)
	}
	if sum(b) != s.Sum {
		return nil, fmt.Errorf("%w: list %s: its checksum is wrong", ErrIndex, listLayout[l].name)
	}
	return b, nil
}

// time is one row's time. Its block is read into buf.
func (x *Index) time(row uint64, buf []byte) (time.Time, error) {
	b, err := x.block(colTime, row/blockRows, buf)
	if err != nil {
		return time.Time{}, err
	}
	return time.UnixMilli(int64(binary.LittleEndian.Uint64(b[row%blockRows*8:]))).UTC(), nil
}

func timeBuffer() []byte { return make([]byte, blockRows*layout[colTime].width) }

// Find are the parties that a word may mean: an id or pseudonym, or the beginning of one of at least six digits, or a business's name in any case.
func (x *Index) Find(word string) []Party {
	var found []Party
	lower := strings.ToLower(word)
	for _, p := range x.Parties() {
		switch {
		case p.Name != "" && strings.EqualFold(p.Name, word),
			len(lower) >= 6 && !p.ID.IsZero() && strings.HasPrefix(p.ID.String(), lower),
			len(lower) >= 6 && strings.HasPrefix(p.Pseudonym.String(), lower):
			found = append(found, p)
		}
	}
	return found
}
