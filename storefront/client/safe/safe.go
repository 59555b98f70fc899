// Package safe keeps what a business must not forget of each person it met, hundreds of thousands of them: a few hundred bytes each, sealed in one file that is
// read from end to end when it is opened, and appended to after that.
//
// A [Person] is who they are (the id, which is the hash of their first identity document), what the business calls them, the relationships it made with them, and
// the marks below which nothing that a storefront shows is believed: the newest manifest of each author, the newest keys, by which invitation they came. Nothing
// else is kept. The key that a grant opens with follows from the business's root and the nonce of a relationship; identities, grants and items are fetched when
// they are needed, and checked by the id and the marks.
//
// [Book] has them in memory, packed as on disk, with an index by id, by alias and by invitation. [Safe] is a Book with its file.
//
// The normal path: [Open], [Book.Get] and [Book.Put], [Safe.Commit], which appends what was put since, syncs, and tells the [Head] that the caller keeps with its
// own sealed state. When a file is mostly what was put anew since, Commit writes a new one in its place.
//
// What it refuses: a file of which any bit was changed, or a chunk moved, left out, or taken from another copy of it ([ErrDamaged], with the place); one that is
// shorter than the Head says ([ErrShort]); one that the Head does not belong to ([ErrOther]). What is not whole, and what comes after it, is dropped if the Head does not tell of it: that
// was never acknowledged.
//
// What it cannot tell: that file and Head together are an old copy. Two machines that share the people of one business each have a file; [Book.Join] takes from
// another's records what is newer, so that the order in which machines copy from one another does not matter.
//
// The caller sees to it that one process has the file open (package profile locks its folder), and that one goroutine at a time uses a Book.
package safe

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policies"
)

// Person is what is kept of one.
type Person struct {
	ID        policies.OwnerID
	Alias     string // at most 255 bytes
	Named     int64  // when the alias was given, Unix seconds
	Relations []Relation
	Mark      Mark         // of the owner's own manifests
	Marks     []AuthorMark // of others who write for the owner
	Purpose   string       // of the newest grant seen
	Granted   uint64       // its place in the owner's chain
	Invited   []Invitation // that the person accepted, by token
	Keys      Keys
}

// Invitation is one that a person accepted.
type Invitation struct {
	Token     policies.Hash // hash of its token
	Reference string        // at most 255 bytes
	Time      int64         // when it was taken, Unix seconds
}

// Relation is one relationship document of the business with a person. What the storefront has not got yet can be signed again from ID and Time.
type Relation struct {
	Nonce policies.Nonce
	Hash  policies.Hash
	ID    policies.DocumentID // zero: the storefront has it
	Time  int64
}

// Mark is a manifest: its version and hash.
type Mark struct {
	Version uint64
	Hash    policies.Hash
}

// AuthorMark is the mark of an author who is not the owner.
type AuthorMark struct {
	Author policies.AuthorID
	Mark
}

// Keys are the newest keys seen of an identity: how many times they were replaced, and the document that did so last.
type Keys struct {
	Generation uint64
	Document   policies.Hash
}

// Of is the mark of an author.
func (p *Person) Of(author policies.AuthorID) *Mark {
	if author == policies.AuthorID(p.ID) {
		return &p.Mark
	}
	for i := range p.Marks {
		if p.Marks[i].Author == author {
			return &p.Marks[i].Mark
		}
	}
	p.Marks = append(p.Marks, AuthorMark{Author: author})
	return &p.Marks[len(p.Marks)-1].Mark
}

// Names are what the person is found by: the alias, if there is one, and the references of invitations that were accepted since it was given.
func (p *Person) Names() iter.Seq[string] {
	return func(yield func(string) bool) {
		if p.Alias != "" && !yield(p.Alias) {
			return
		}
		for i := range p.Invited {
			if p.names(i) && !yield(p.Invited[i].Reference) {
				return
			}
		}
	}
}

// names reports whether the reference of an invitation is another name.
func (p *Person) names(i int) bool {
	return p.Invited[i].Time >= p.Named && p.Invited[i].Reference != p.Alias
}

// Call gives the person an alias. What they were found by before, they are not any more.
func (p *Person) Call(alias string, now time.Time) {
	p.Alias, p.Named = alias, max(now.Unix(), p.Named+1)
}

// Invite adds an invitation that the person accepted. The reference of the first one is the alias; those of others are further names. It reports false, and does nothing,
// if that is known.
func (p *Person) Invite(token policies.Hash, reference string, now time.Time) bool {
	if slices.ContainsFunc(p.Invited, func(i Invitation) bool { return i.Token == token }) {
		return false
	}
	if reference != p.Alias && (len(p.Invited) == 0 || p.Alias == "") {
		p.Call(reference, now)
	}
	p.Invited = union(p.Invited, []Invitation{{token, reference, max(now.Unix(), p.Named)}})
	return true
}

// Newest is the token of the invitation that was accepted last, if there is one.
func (p *Person) Newest() (token policies.Hash) {
	if len(p.Invited) > 0 {
		token = slices.MaxFunc(p.Invited, later).Token
	}
	return token
}

func byToken(a, b Invitation) int { return slices.Compare(a.Token[:], b.Token[:]) }

func later(a, b Invitation) int { return cmp.Or(cmp.Compare(a.Time, b.Time), byToken(a, b)) }

// union is what is in either of two lists, by token, each once.
func union(a, b []Invitation) []Invitation {
	both := slices.Concat(a, b)
	slices.SortFunc(both, func(a, b Invitation) int {
		return cmp.Or(byToken(a, b), -cmp.Compare(a.Time, b.Time), strings.Compare(a.Reference, b.Reference))
	})
	return slices.CompactFunc(both, func(a, b Invitation) bool { return a.Token == b.Token })
}

// Unposted reports whether the storefront does not have a relationship yet.
func (p *Person) Unposted() bool {
	return slices.ContainsFunc(p.Relations, func(r Relation) bool { return !r.ID.IsZero() })
}

var (
	// ErrRecord: the bytes are no records of people.
	ErrRecord = errors.New("not a record of a person")
	// ErrShared: several people have the alias.
	ErrShared = errors.New("several people have this alias")
)

// pageSize is how much of a Book one allocation holds in bytes, and one chunk of a file at most, give or take a record.
const pageSize = 256 << 10

// Book has people in memory. The zero Book is not usable; see [NewBook].
type Book struct {
	pages   [][]byte // records, one after another; a later one of the same person counts
	bytes   int      // of pages
	people  int
	live    int // bytes of the records that count
	ids     index
	aliases index
	invited index
	posts   map[policies.OwnerID]struct{} // people with relationships that the storefront does not have
	changed map[policies.OwnerID]struct{} // put since the last commit
}

// place is where a record begins: page << 32 | offset.
type place uint64

// index finds records by a hash of what they are looked up by. Two that share a hash are told apart by looking at all records, which happens as good as never: the
// hash has 64 bits and a seed of its own in each process.
type index struct {
	at     map[uint64]place // the last one put
	shared map[uint64]bool
	hash   func([]byte) uint64
}

func newIndex(size int) index {
	seed := maphash.MakeSeed()
	return index{at: make(map[uint64]place, size), shared: map[uint64]bool{}, hash: func(b []byte) uint64 { return maphash.Bytes(seed, b) }}
}

// NewBook makes an empty one, with room for so many people.
func NewBook(room int) *Book {
	return &Book{
		ids: newIndex(room), aliases: newIndex(room), invited: newIndex(room),
		posts: map[policies.OwnerID]struct{}{}, changed: map[policies.OwnerID]struct{}{},
	}
}

// Len is how many people there are.
func (b *Book) Len() int { return b.people }

// Get finds a person by id.
func (b *Book) Get(id policies.OwnerID) (Person, bool) {
	at, ok := b.find(id)
	if !ok {
		return Person{}, false
	}
	p, _, err := decode(b.from(at))
	if err != nil {
		panic("safe: a record in memory is none any more: " + err.Error())
	}
	return p, true
}

// Named finds a person by alias or another name. [ErrShared]: several have it.
func (b *Book) Named(alias string) (id policies.OwnerID, found bool, err error) {
	if alias == "" {
		return id, false, nil
	}
	return b.lookUp(&b.aliases, []byte(alias), func(r *raw) bool { return r.is(alias) })
}

// Came finds who came by an invitation.
func (b *Book) Came(invitation policies.Hash) (id policies.OwnerID, found bool) {
	id, found, _ = b.lookUp(&b.invited, invitation[:], func(r *raw) bool { return r.cameBy(invitation) })
	return id, found
}

// lookUp finds who has something that is looked up by key.
func (b *Book) lookUp(x *index, key []byte, has func(*raw) bool) (id policies.OwnerID, found bool, err error) {
	h := x.hash(key)
	at, ok := x.at[h]
	if !ok {
		return id, false, nil
	}
	if !x.shared[h] {
		r := b.raw(at)
		now, _ := b.find(r.id)
		return r.id, now == at && has(&r), nil
	}
	b.each(func(_ place, r *raw) bool {
		if has(r) {
			if found {
				err = ErrShared
			}
			id, found = r.id, true
		}
		return err == nil
	})
	return id, found, err
}

// find is where the record of a person that counts begins.
func (b *Book) find(id policies.OwnerID) (place, bool) {
	h := b.ids.hash(id[:])
	at, ok := b.ids.at[h]
	if !ok {
		return 0, false
	}
	if !b.ids.shared[h] {
		return at, b.raw(at).id == id
	}
	ok = false
	b.scan(func(p place, r *raw) bool {
		if r.id == id {
			at, ok = p, true
		}
		return true
	})
	return at, ok
}

func (b *Book) from(at place) []byte { return b.pages[at>>32][uint32(at):] }

func (b *Book) raw(at place) raw {
	r, _, err := skim(b.from(at))
	if err != nil {
		panic("safe: a record in memory is none any more: " + err.Error())
	}
	return r
}

// scan calls f for every record, those that do not count any more too.
func (b *Book) scan(f func(place, *raw) bool) {
	for i, page := range b.pages {
		for offset := 0; offset < len(page); {
			at := place(i)<<32 | place(offset)
			r := b.raw(at)
			if !f(at, &r) {
				return
			}
			offset += r.size
		}
	}
}

// each calls f for the records that count.
func (b *Book) each(f func(place, *raw) bool) {
	b.scan(func(at place, r *raw) bool {
		if now, _ := b.find(r.id); now != at {
			return true
		}
		return f(at, r)
	})
}

// Each calls f for everybody, in no order that means anything. f may put.
func (b *Book) Each(f func(*Person) error) error {
	for _, id := range b.IDs() {
		if p, ok := b.Get(id); ok {
			if err := f(&p); err != nil {
				return err
			}
		}
	}
	return nil
}

// IDs are those of everybody.
func (b *Book) IDs() []policies.OwnerID {
	out := make([]policies.OwnerID, 0, b.people)
	b.each(func(_ place, r *raw) bool {
		out = append(out, r.id)
		return true
	})
	return out
}

// Aliases calls f for everybody with what the business calls them.
func (b *Book) Aliases(f func(id policies.OwnerID, alias string)) {
	b.each(func(_ place, r *raw) bool {
		f(r.id, string(r.alias))
		return true
	})
}

// Unposted are the people with a relationship that the storefront does not have yet.
func (b *Book) Unposted() []policies.OwnerID { return slices.Collect(maps.Keys(b.posts)) }

// Put takes a person in, in the place of what was known of them.
func (b *Book) Put(p *Person) error {
	record, err := encode(p)
	if err != nil {
		return err
	}
	last := len(b.pages) - 1
	if last < 0 || len(b.pages[last])+len(record) > cap(b.pages[last]) {
		b.pages = append(b.pages, make([]byte, 0, max(pageSize, len(record))))
		last++
	}
	offset := len(b.pages[last])
	b.pages[last] = append(b.pages[last], record...)
	b.bytes += len(record)
	r, _, err := skim(record)
	if err != nil {
		return err
	}
	b.take(place(last)<<32|place(offset), &r)
	b.changed[p.ID] = struct{}{}
	b.tidy()
	return nil
}

// takePage takes a page of records in. The Book keeps the bytes.
func (b *Book) takePage(page []byte) error {
	if len(page) == 0 {
		return nil
	}
	b.pages = append(b.pages, page)
	b.bytes += len(page)
	for offset := 0; offset < len(page); {
		r, _, err := skim(page[offset:])
		if err != nil {
			return err
		}
		b.take(place(len(b.pages)-1)<<32|place(offset), &r)
		offset += r.size
	}
	return nil
}

// take makes a record the one that counts. Its bytes are in the last page.
func (b *Book) take(at place, r *raw) {
	h := b.ids.hash(r.id[:])
	if was, ok := b.ids.at[h]; ok {
		old := b.raw(was)
		if old.id != r.id && !b.ids.shared[h] {
			b.ids.shared[h] = true
		}
		if b.ids.shared[h] {
			old, ok = b.before(at, r.id)
		}
		if ok {
			b.people--
			b.live -= old.size
			for name := range old.names() {
				b.aliases.drop(name, was)
			}
		}
	}
	b.ids.at[h] = at
	b.people++
	b.live += r.size
	for name := range r.names() {
		b.aliases.add(b, at, r, name)
	}
	for token := range r.tokens() {
		b.invited.add(b, at, r, token)
	}
	if r.unposted {
		b.posts[r.id] = struct{}{}
	} else {
		delete(b.posts, r.id)
	}
}

// before finds the newest record of a person before a place.
func (b *Book) before(at place, id policies.OwnerID) (out raw, found bool) {
	b.scan(func(p place, r *raw) bool {
		if p < at && r.id == id {
			out, found = *r, true
		}
		return p < at
	})
	return out, found
}

// add enters a record under a key.
func (x *index) add(b *Book, at place, r *raw, key []byte) {
	if len(key) == 0 {
		return
	}
	h := x.hash(key)
	if was, ok := x.at[h]; ok && !x.shared[h] && b.raw(was).id != r.id {
		x.shared[h] = true
	}
	x.at[h] = at
}

// drop forgets that a record has a key, unless the hash is shared: then looking tells.
func (x *index) drop(key []byte, at place) {
	if h := x.hash(key); len(key) > 0 && !x.shared[h] && x.at[h] == at {
		delete(x.at, h)
	}
}

// tidy packs the records that count anew, when most do not.
func (b *Book) tidy() {
	if b.bytes < 2*b.live+4*pageSize {
		return
	}
	fresh := NewBook(b.people)
	fresh.changed = b.changed
	fresh.ids.hash, fresh.aliases.hash, fresh.invited.hash = b.ids.hash, b.aliases.hash, b.invited.hash
	_ = b.Pages(func(page []byte) error { return fresh.takePage(slices.Clone(page)) }) // records of memory are records
	*b = *fresh
}

// Pages hands out the records of everybody, some hundred kilobytes at a time. The bytes are overwritten by the next call.
func (b *Book) Pages(f func(page []byte) error) (err error) {
	page := make([]byte, 0, pageSize+1<<10)
	b.each(func(at place, r *raw) bool {
		page = append(page, b.from(at)[:r.size]...)
		if len(page) >= pageSize {
			err = f(page)
			page = page[:0]
		}
		return err == nil
	})
	if err == nil && len(page) > 0 {
		err = f(page)
	}
	return err
}

// Records are those of everybody, for a backup.
func (b *Book) Records() []byte {
	out := make([]byte, 0, b.live)
	_ = b.Pages(func(page []byte) error { out = append(out, page...); return nil })
	return out
}

// Conflict is something that two machines know differently and that cannot both be so.
type Conflict struct {
	ID   policies.OwnerID `json:"id"`
	What string           `json:"what"`
}

// Join takes from the records of another machine what this one does not have, or has older. Of two marks the larger counts, of two aliases of one person the one
// given later; so machines that join one another's records, in any order and any number of times, end with the same. It names what cannot be joined: two aliases that
// meet, and two documents in one place, which is what a storefront does that shows different people different things.
func (b *Book) Join(records []byte) (news int, conflicts []Conflict, err error) {
	for rest := records; len(rest) > 0; { // all of it is read before any of it counts
		_, n, err := decode(rest)
		if err != nil {
			return 0, nil, err
		}
		rest = rest[n:]
	}
	for len(records) > 0 {
		theirs, n, err := decode(records)
		if err != nil {
			return news, conflicts, err
		}
		records = records[n:]
		ours, known := b.Get(theirs.ID)
		if !known {
			ours = Person{ID: theirs.ID}
		}
		for _, what := range ours.join(&theirs) {
			conflicts = append(conflicts, Conflict{theirs.ID, what})
		}
		joined, err := encode(&ours)
		if err != nil { // of this one the records do not fit together; what is known here stays
			conflicts = append(conflicts, Conflict{theirs.ID, err.Error()})
			continue
		}
		if at, ok := b.find(theirs.ID); ok && string(b.from(at)[:b.raw(at).size]) == string(joined) {
			continue
		}
		for name := range ours.Names() {
			if id, taken, shared := b.Named(name); shared != nil || taken && id != ours.ID {
				conflicts = append(conflicts, Conflict{theirs.ID, fmt.Sprintf("the alias %q is somebody else's too", name)})
			}
		}
		if err := b.Put(&ours); err != nil {
			return news, conflicts, err
		}
		news++
	}
	return news, conflicts, nil
}

// join takes what is newer from another record of the same person.
func (p *Person) join(o *Person) (conflicts []string) {
	if o.Named > p.Named || o.Named == p.Named && o.Alias > p.Alias {
		p.Alias, p.Named = o.Alias, o.Named
	}
	p.Invited = union(p.Invited, o.Invited)
	if n := len(p.Invited) - maxInvited; n > 0 { // the newest are kept, whoever joins with whom
		slices.SortFunc(p.Invited, later)
		p.Invited = slices.Delete(p.Invited, 0, n)
		slices.SortFunc(p.Invited, byToken)
		conflicts = append(conflicts, fmt.Sprintf("more than %d invitations that the person accepted", maxInvited))
	}
	added := false
	for _, r := range o.Relations {
		i := slices.IndexFunc(p.Relations, func(have Relation) bool { return have.Hash == r.Hash })
		switch {
		case i < 0:
			p.Relations, added = append(p.Relations, r), true
		case r.ID.IsZero():
			p.Relations[i] = r // posted by whichever
		}
	}
	if added {
		slices.SortFunc(p.Relations, func(a, b Relation) int { return slices.Compare(a.Hash[:], b.Hash[:]) })
	}
	joinMark := func(m *Mark, o Mark, whose string) {
		if m.Version == o.Version && m.Hash != o.Hash {
			conflicts = append(conflicts, fmt.Sprintf("two lists of items of version %d by %s", m.Version, whose))
		}
		if o.Version > m.Version || o.Version == m.Version && slices.Compare(o.Hash[:], m.Hash[:]) > 0 {
			*m = o
		}
	}
	joinMark(&p.Mark, o.Mark, "the person")
	for _, m := range o.Marks {
		joinMark(p.Of(m.Author), m.Mark, m.Author.String())
	}
	slices.SortFunc(p.Marks, func(a, b AuthorMark) int { return slices.Compare(a.Author[:], b.Author[:]) })
	if o.Granted > p.Granted || o.Granted == p.Granted && o.Purpose > p.Purpose {
		p.Purpose, p.Granted = o.Purpose, o.Granted
	}
	if o.Keys.Generation == p.Keys.Generation && o.Keys.Document != p.Keys.Document {
		conflicts = append(conflicts, fmt.Sprintf("two documents that made their keys of generation %d", p.Keys.Generation))
	}
	if o.Keys.Generation > p.Keys.Generation || o.Keys.Generation == p.Keys.Generation && slices.Compare(o.Keys.Document[:], p.Keys.Document[:]) > 0 {
		p.Keys = o.Keys
	}
	return conflicts
}
