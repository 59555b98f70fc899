package audit

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// replay is what the vault knew at each entry, made anew from the log. It keeps what is in force and what a reason can still speak of: sessions until they
// are over, grants until they expire, the counts of one day. So it does not grow with the log, but with the identities, heads and grants in it.
type replay struct {
	log  *Log
	part Range
	now  time.Time // of the newest entry

	windows  windows
	window   window // of the newest entry
	from, to uint64 // of the releases in the part
	releases uint64

	identities map[policies.IdentityID]*identity
	chains     map[policies.OwnerID]chain
	heads      map[headKey]*head
	writers    map[headKey][]*writer
	writes     map[policies.DocumentID]*writer
	imports    map[policies.DocumentID]*grant
	grants     map[policies.DocumentID]*grant
	sessions   map[policies.Hash]*session
	ending     map[int64][]policies.Hash // sessions by the minute after which nobody may speak of them
	spent      map[pair]*spent
	orders     map[policies.Hash]uint64 // orders of first operators by the freeze that used them
	minute     int64                    // of the newest entry, and its UTC day
	day        int64

	// What was not there to be replayed: whatever is not known may have been in it.
	erasedTo     uint64 // what was to be erased lies below
	gone         gone
	rules        rules
	unseen       map[policies.Pseudonym]string // of identities whose newest voucher was not there, why
	uncounted    map[parties]uncounted
	token, grade string               // of the newest start; empty: not known
	named        map[string]*identity // what names that were vouched for look like, and whose they are
	entry        *evidence.Entry      // the newest
	lostSession  time.Time            // the newest session that was erased or is absent
	lost         string               // ReasonAbsent if an identity, a manifest, an import, a grant or a revocation was
	lostSessions string               // and if a session was
}

type identity struct {
	key    []byte // in force
	pseudo policies.Pseudonym
	proof  *proof
	name   string
	standing
	vouched
}

type chain struct {
	seq  uint64
	hash policies.Hash
}

type headKey struct {
	owner  policies.OwnerID
	author policies.AuthorID
}

type head struct {
	index    uint64
	version  uint64
	manifest policies.Hash
	time     int64 // of the entry, Unix seconds
	proof    *proof
	released map[policies.Field]released
}

// released is the newest item of a field that was released.
type released struct {
	version uint64
	leaf    policies.Hash
	head    policies.Hash
}

type grant struct {
	document policies.Grant // without ciphertext and wrapped keys
	hash     policies.Hash
	index    uint64 // of the import
	proof    *proof
	chain    *place
	revoked  []uint64 // for each field the index of the revocation, 0 for none
}

// A place is that of a document in its owner's chain, if it is not the next one.
type place struct {
	why  Reason
	lost bool // the one before may have been erased
}

type session struct {
	document policies.Session
	ended    uint64 // by which entry, before its time; 0: by none
	proof    *proof
	nonces   map[policies.Nonce]uint64 // by the index at which they came
	request  pass
}

// A pass is one coming of a request: it has one entry for each item, one after the other.
type pass struct {
	hash     policies.Hash
	first    uint64
	document *policies.ReadRequest // nil if it is not there
	why      Reason                // then why
	proof    *proof
	nonce    *Reason // what is wrong with its nonce
}

type pair struct {
	owner  policies.OwnerID
	reader policies.ReaderID
}

// spent counts the releases of an owner's fields to a reader on one day.
type spent struct {
	day  int64
	used map[written]uint64
}

type written struct {
	field  policies.Field
	author policies.AuthorID
}

func newReplay(l *Log, part Range) *replay {
	return &replay{
		log: l, part: part,
		identities: map[policies.IdentityID]*identity{}, chains: map[policies.OwnerID]chain{}, heads: map[headKey]*head{},
		writers: map[headKey][]*writer{}, writes: map[policies.DocumentID]*writer{},
		imports: map[policies.DocumentID]*grant{}, grants: map[policies.DocumentID]*grant{},
		sessions: map[policies.Hash]*session{}, ending: map[int64][]policies.Hash{}, spent: map[pair]*spent{}, orders: map[policies.Hash]uint64{}, gone: newGone(), unseen: map[policies.Pseudonym]string{}, uncounted: map[parties]uncounted{},
		named: map[string]*identity{},
	}
}

func dayOf(t time.Time) int64 { return t.Unix() / 86400 }

// apply takes one entry of the log.
func (s *replay) apply(r *Record, p *prepared, b *batch) {
	s.now, s.entry = r.Time, &r.Entry
	s.forget()
	s.window = s.windows.of(r.Index)
	inside := s.part.has(r)
	if inside {
		if s.to == 0 {
			s.from = r.Index
		}
		s.to = r.Index + 1
	}
	if p.details == nil {
		s.missing(r, inside, b)
		return
	}
	switch d := p.details; r.Entry.Kind {
	case evidence.EntryStart:
		s.token, s.grade = d.Token, d.Grade
	case evidence.EntryIdentity:
		s.enrol(r, p, b)
	case evidence.EntryManifest:
		s.publish(r, p, b)
	case evidence.EntryImport:
		s.begin(r, p, b)
	case evidence.EntryGrant:
		s.grant(r, d, b)
	case evidence.EntryFailed:
		if g := s.imports[d.Grant]; g != nil && g.index == d.Index {
			delete(s.imports, d.Grant)
		}
	case evidence.EntryRevocation:
		s.revoke(r, p, b)
	case evidence.EntryClosure:
		s.close(r, p, b)
	case evidence.EntryDestroyed:
		if !d.Reader.IsZero() {
			s.endToClosed(r, d, b)
		}
	case evidence.EntryWriteGrant:
		s.letWrite(r, p, b)
	case evidence.EntryWriteEnd:
		s.endWriting(r, p, b)
	case evidence.EntrySession:
		s.open(r, p, b)
	case evidence.EntrySuccession:
		s.succeed(r, p, b)
	case evidence.EntryNotice:
		s.announce(r, p, b)
	case evidence.EntrySuspension:
		s.suspend(r, p, b)
	case evidence.EntryFreeze:
		s.freeze(r, p, b)
	case evidence.EntryThaw:
		s.thaw(r, p, b)
	case evidence.EntryGivenUp:
		s.giveUp(r, p, b)
	case evidence.EntryVoucher:
		s.vouch(r, p, b)
	case evidence.EntryGuardrails:
		s.guard(r, p, b)
	case evidence.EntryUse, evidence.EntryRefusal:
		s.use(r, p, inside, b)
	case evidence.EntryErasure:
		if d.Index+d.Count > r.Index {
			document(r, d, b, nil, "", "", reason(ReasonErasure, "it speaks of entries %d to %d, which did not all come before it", d.Index, d.Index+d.Count-1))
			break
		}
		s.erasedTo = max(s.erasedTo, d.Index+d.Count)
	case evidence.EntryAccess:
		if !d.Nonce.IsZero() { // an auditor's query; the others are counts of what people were given that concerns themselves
			s.query(r, p, b)
		}
	}
}

// end lists the last entries whose bodies are gone, if the log does not say that they were to be erased.
func (s *replay) end(b *batch) {
	for _, r := range s.gone.unexplained(s.erasedTo) {
		document(&r, nil, b, nil, "", "", reason(ReasonErasure, "what lay beside it is gone, and the log speaks of an erasure up to entry %d only, and of no closure of that account", s.erasedTo))
	}
}

// forget drops what no later entry can rest on.
func (s *replay) forget() {
	minute := s.now.Unix() / 60
	if minute == s.minute {
		return
	}
	for m, hashes := range s.ending {
		if m < minute {
			for _, hash := range hashes {
				delete(s.sessions, hash)
			}
			delete(s.ending, m)
		}
	}
	s.minute = minute
	day := dayOf(s.now)
	if day == s.day {
		return
	}
	s.day = day
	for k, sp := range s.spent {
		if sp.day < day-1 {
			delete(s.spent, k)
		}
	}
	for k, u := range s.uncounted {
		if u.day < day-1 {
			delete(s.uncounted, k)
		}
	}
	for id, g := range s.grants {
		if g.document.Expires < s.now.Unix()-86400 {
			delete(s.grants, id)
		}
	}
}

// missing takes an entry whose body is not there.
func (s *replay) missing(r *Record, inside bool, b *batch) {
	why := ReasonErased
	if r.Absent {
		why = ReasonAbsent
	} else {
		s.gone.note(r)
	}
	switch r.Entry.Kind {
	case evidence.EntryStart:
		s.token, s.grade = "", ""
	case evidence.EntryVoucher:
		s.unseen[r.Entry.Reader] = why
	case evidence.EntryGuardrails:
		s.rules.lost, s.rules.index = why, r.Index
	case evidence.EntryUse:
		if r.Entry.Outcome == policies.CodeReleased {
			s.uncount(r, why)
		}
	}
	switch r.Entry.Kind {
	case evidence.EntryIdentity, evidence.EntryManifest, evidence.EntryImport, evidence.EntryGrant, evidence.EntryRevocation,
		evidence.EntryWriteGrant, evidence.EntryWriteEnd, evidence.EntrySuccession, evidence.EntryNotice, evidence.EntrySuspension,
		evidence.EntryFreeze, evidence.EntryThaw, evidence.EntryGivenUp, evidence.EntryVoucher, evidence.EntryGuardrails:
		if r.Absent {
			s.lost = why
		}
	case evidence.EntrySession:
		s.lostSession, s.lostSessions = r.Time, why
	case evidence.EntryUse, evidence.EntryRefusal:
		s.gone.reads[r.Entry.Reader] = r.Index
		if r.Entry.Kind != evidence.EntryUse || r.Entry.Outcome != policies.CodeReleased || !inside {
			return
		}
		s.releases++
		b.verdicts = append(b.verdicts, &verdict{finding: found(r, nil), release: true, unchecked: []Reason{reason(why, "the entry's own details")}})
	}
}

func found(r *Record, d *evidence.Details) Finding {
	f := Finding{Index: r.Index, Time: r.Time, Kind: r.Entry.Kind, Owner: r.Entry.Owner, Reader: r.Entry.Reader}
	if d != nil {
		f.Grant, f.Field = d.Grant, d.Field
	}
	return f
}

// document lists an entry whose document has a fault, or may turn out to have one.
func document(r *Record, d *evidence.Details, b *batch, p *proof, code, what string, faults ...Reason) {
	v := &verdict{finding: found(r, d)}
	v.finding.Reasons = faults
	if p != nil {
		v.proofs = []claimed{{p, code, what}}
	}
	b.verdicts = append(b.verdicts, v)
}

// of is the document of an entry, of the type that the state needs; nil if it is not there, which is then listed.
func of[T any](r *Record, p *prepared, b *batch) *T {
	if d, ok := p.document.(*T); ok && d != nil {
		return d
	}
	what := "no signed document lies beside the entry"
	if p.err != nil {
		what = "the document beside the entry: " + p.err.Error()
	}
	document(r, p.details, b, nil, "", "", reason(ReasonDetails, "%s", what))
	return nil
}

func (s *replay) enrol(r *Record, p *prepared, b *batch) {
	d := of[policies.Identity](r, p, b)
	if d == nil {
		return
	}
	id := policies.IdentityID(p.signed.Hash)
	var faults []Reason
	if s.identities[id] != nil {
		faults = append(faults, reason(ReasonIdentity, "it was enrolled before"))
	}
	if p.details.Pseudo != r.Entry.Owner || p.details.Pseudo.IsZero() {
		faults = append(faults, reason(ReasonPseudonym, "the entry is not under the pseudonym that it gives"))
	}
	one := &identity{key: d.SigningKey, name: d.Name, pseudo: p.details.Pseudo, proof: b.proof(p.signed, d.SigningKey, nil),
		standing: standing{generation: 1, document: policies.Hash(id), recovery: d.RecoveryHash}}
	s.identities[id] = one
	document(r, p.details, b, one.proof, ReasonIdentitySignature, "the identity does not certify itself", faults...)
}

// signed is the proof that an identity signed a document; nil if its enrolment was erased.
func (s *replay) signed(b *batch, p *prepared, by policies.IdentityID) *proof {
	one := s.identities[by]
	switch {
	case one != nil:
		return b.proof(p.signed, one.key, nil)
	case s.lostReason() != "":
		return nil
	}
	return b.proof(p.signed, nil, nil)
}

// advance moves an owner's chain to a document, and says what is wrong with that. It moves in any case, so that one fault is told once.
func (s *replay) advance(owner policies.OwnerID, link policies.Link, hash policies.Hash, audience policies.VaultID) *place {
	c, ok := s.chains[owner]
	if !ok {
		c = chain{hash: policies.Hash(owner)}
	}
	s.chains[owner] = chain{link.Seq, hash}
	if audience != s.log.Document.Vault {
		return &place{why: reason(ReasonGrantChain, "the document is addressed to another vault")}
	}
	if link.Follows(c.seq, c.hash) != nil {
		why := reason(ReasonGrantChain, "the document has seq %d over %s; the owner's newest was seq %d, %s", link.Seq, link.Prev, c.seq, c.hash)
		return &place{why, s.lostReason() != ""}
	}
	return nil
}

// add appends what is wrong with a place, if that is certain.
func (p *place) add(faults []Reason) []Reason {
	if p == nil || p.lost {
		return faults
	}
	return append(faults, p.why)
}

func (s *replay) publish(r *Record, p *prepared, b *batch) {
	m := of[policies.Manifest](r, p, b)
	if m == nil {
		return
	}
	key := headKey{m.Owner, m.Author}
	var faults []Reason
	if policies.AuthorID(m.Owner) == m.Author {
		faults = s.advance(m.Owner, m.Link, p.signed.Hash, m.Audience).add(faults)
	} else {
		faults = s.admitted(r, m, faults)
	}
	h := s.heads[key]
	if h == nil {
		h = &head{released: map[policies.Field]released{}}
		s.heads[key] = h
	}
	if s.lostReason() == "" && (m.Version != h.version+1 || m.PrevManifest != h.manifest) {
		faults = append(faults, reason(ReasonHead, "the manifest has version %d over %s; the newest was %d, %s", m.Version, m.PrevManifest, h.version, h.manifest))
	}
	h.index, h.version, h.manifest, h.time = r.Index, m.Version, p.signed.Hash, r.Time.Unix()
	h.proof = s.signed(b, p, policies.IdentityID(m.Author))
	document(r, p.details, b, h.proof, ReasonHeadSignature, "the manifest is not signed by its author", faults...)
}

func (s *replay) begin(r *Record, p *prepared, b *batch) {
	g := of[policies.Grant](r, p, b)
	if g == nil {
		return
	}
	one := &grant{document: *g, hash: p.signed.Hash, index: r.Index, revoked: make([]uint64, len(g.Fields))}
	one.document.Ciphertext, one.document.Fields = nil, make([]policies.GrantedField, len(g.Fields))
	for i, f := range g.Fields {
		one.document.Fields[i] = policies.GrantedField{Field: f.Field, Epoch: f.Epoch, Author: f.Author}
	}
	one.proof = s.signed(b, p, policies.IdentityID(g.Owner))
	var faults []Reason
	if s.grants[g.ID] != nil || s.imports[g.ID] != nil {
		faults = append(faults, reason(ReasonGrantChain, "a grant with this id was imported before"))
	}
	if s.identities[policies.IdentityID(g.Reader)] == nil && s.lostReason() == "" {
		faults = append(faults, reason(ReasonIdentity, "the reader is not enrolled"))
	}
	s.imports[g.ID] = one
	document(r, p.details, b, one.proof, ReasonGrantSignature, "the grant is not signed by the owner", faults...)
}

func (s *replay) grant(r *Record, d *evidence.Details, b *batch) {
	g := s.imports[d.Grant]
	if g == nil || g.hash != d.Document || g.index != d.Index {
		if s.lostReason() == "" {
			document(r, d, b, nil, "", "", reason(ReasonGrantChain, "the grant that is in force now was not imported as it is named"))
		}
		return
	}
	delete(s.imports, d.Grant)
	g.chain = s.advance(g.document.Owner, g.document.Link, g.hash, g.document.Audience)
	s.grants[d.Grant] = g
	if faults := g.chain.add(nil); faults != nil {
		document(r, d, b, nil, "", "", faults...)
	}
}

func (s *replay) revoke(r *Record, p *prepared, b *batch) {
	d := of[policies.Revocation](r, p, b)
	if d == nil {
		return
	}
	var faults []Reason
	faults = s.advance(d.Owner, d.Link, p.signed.Hash, d.Audience).add(faults)
	s.endItems(r.Index, d.Owner, policies.ReaderID{}, d.Items)
	document(r, p.details, b, s.signed(b, p, policies.IdentityID(d.Owner)), ReasonGrantSignature, "the revocation is not signed by the owner", faults...)
}

// endItems ends fields of an owner's grants, those to one reader if it is given, and counts those that are not such.
func (s *replay) endItems(by uint64, owner policies.OwnerID, reader policies.ReaderID, items []policies.RevokedItem) (strange int) {
	for _, item := range items {
		g := s.grants[item.Grant]
		if g == nil {
			continue // one that expired is forgotten
		}
		if g.document.Owner != owner || !reader.IsZero() && g.document.Reader != reader {
			strange++
			continue
		}
		for i := range g.document.Fields {
			if f := &g.document.Fields[i]; f.Field == item.Field && f.Author == item.Author && g.revoked[i] == 0 {
				g.revoked[i] = by
			}
		}
	}
	return strange
}

func (s *replay) open(r *Record, p *prepared, b *batch) {
	d := of[policies.Session](r, p, b)
	if d == nil {
		return
	}
	var faults []Reason
	if d.Audience != s.log.Document.Vault {
		faults = append(faults, reason(ReasonSessionSignature, "the session is for another vault"))
	}
	one := &session{document: *d, nonces: map[policies.Nonce]uint64{}, proof: s.signed(b, p, policies.IdentityID(d.Reader))}
	one.document.Ciphertext = nil
	if s.sessions[p.signed.Hash] != nil {
		faults = append(faults, reason(ReasonSessionSignature, "the session was opened before, and its nonces are forgotten"))
	}
	s.sessions[p.signed.Hash] = one
	// Used by an entry until it is over, by the clocks of decision and log; after that a use of it is a use of no session.
	last := (max(d.Expires, r.Time.Unix()) + int64((latestEntry+policies.ClockSkew)/time.Second)) / 60
	s.ending[last] = append(s.ending[last], p.signed.Hash)
	document(r, p.details, b, one.proof, ReasonSessionSignature, "the session is not signed by the reader", faults...)
}

// query checks that an auditor asked for what was given out.
func (s *replay) query(r *Record, p *prepared, b *batch) {
	q := of[policies.AuditQuery](r, p, b)
	if q == nil {
		return
	}
	var faults []Reason
	if d := p.details; q.Audience != s.log.Document.Vault || q.Auditor != d.Identity || q.Nonce != d.Nonce || q.From != d.Index || q.Count != d.Count || string(q.What) != d.Note {
		faults = append(faults, reason(ReasonQuery, "the query asks for something else"))
	}
	document(r, p.details, b, s.signed(b, p, q.Auditor), ReasonQuery, "the query is not signed by the auditor", faults...)
}

// come notes that an item of a request is on record, and returns the request's coming that it belongs to.
func (s *replay) come(one *session, r *Record, p *prepared, b *batch) *pass {
	d, q := p.details, &one.request
	// The entries of one coming follow each other, and only the first has the request beside it.
	if place := r.Index - q.first; q.hash == d.Request && !q.hash.IsZero() && place > 0 && (q.document == nil || place < uint64(len(q.document.Items))) && len(r.Document) == 0 {
		return q
	}
	*q = pass{hash: d.Request, first: r.Index}
	if before, used := one.nonces[d.Nonce]; used {
		why := reason(ReasonNonce, "the nonce was used before, by entry %d", before)
		q.nonce = &why
	} else {
		one.nonces[d.Nonce] = r.Index
	}
	request, ok := p.document.(*policies.ReadRequest)
	switch {
	case ok && request != nil && policies.Hash(p.signed.Hash) == d.Request:
		q.document, q.proof = request, b.proof(p.signed, nil, &one.document.Key)
	case p.err != nil:
		q.why = reason(ReasonRequest, "the request beside the entry: %v", p.err)
	default:
		q.why = reason(ReasonRequest, "no signed request lies beside the entry")
		if last, lost := s.gone.reads[r.Entry.Reader]; lost && r.Index-last <= uint64(policies.MaxReadItems) {
			q.why = reason(ReasonErased, "the request lay beside the entry of another item")
		}
	}
	return q
}

// use decides a release anew. Refusals come here for the nonces that they took.
func (s *replay) use(r *Record, p *prepared, inside bool, b *batch) {
	d := p.details
	one := s.sessions[d.Session]
	var q *pass
	if one != nil && !d.Nonce.IsZero() {
		q = s.come(one, r, p, b)
	}
	if r.Entry.Kind != evidence.EntryUse || r.Entry.Outcome != policies.CodeReleased {
		return
	}
	v := &verdict{finding: found(r, d), release: true}
	decided := time.UnixMilli(d.Decided).UTC()
	if d.Decided == 0 {
		v.unknown(ReasonUndated, "the entry does not say when it was decided")
		decided = r.Time
	} else if late := r.Time.Sub(decided); late > latestEntry || late < -earliestEntry {
		v.fault(ReasonTime, "decided at %s, logged at %s", decided.Format(timeFormat), r.Time.Format(timeFormat))
	}
	v.dated(r, s.window)
	if s.token != "" && (d.Token != s.token || d.Grade != s.grade) {
		v.fault(ReasonDetails, "with token %s of grade %s; the vault started with %s of grade %s", d.Token, d.Grade, s.token, s.grade)
	}
	s.parties(v, r, d)
	ask := s.asked(v, r, d, one, q, decided)
	g := s.granted(v, d)
	if g != nil && ask != nil {
		s.permit(v, d, g, q, ask, decided)
	}
	s.guarded(v, d, g, q, ask, decided)
	s.newest(v, d)
	if g != nil { // as the vault counts: what was released, whether it should have been or not
		v.bounded(&g.document, s.window)
		s.spend(g, d, decided)
	}
	if inside {
		s.releases++
		b.verdicts = append(b.verdicts, v)
	}
}

func (v *verdict) fault(code, format string, args ...any) {
	v.finding.Reasons = append(v.finding.Reasons, reason(code, format, args...))
}

func (v *verdict) unknown(code, format string, args ...any) {
	v.unchecked = append(v.unchecked, reason(code, format, args...))
}

func (v *verdict) needs(p *proof, code, what string) {
	if p != nil {
		v.proofs = append(v.proofs, claimed{p, code, what})
	}
}

// notKnown is for something that the log should have told before: a fault, unless something that was erased may have told it.
func (s *replay) notKnown(v *verdict, code, format string, args ...any) {
	if lost := s.lostReason(); lost != "" {
		v.unknown(lost, format, args...)
	} else {
		v.fault(code, format, args...)
	}
}

// parties checks who the entry says it is about.
func (s *replay) parties(v *verdict, r *Record, d *evidence.Details) {
	for _, one := range []struct {
		what   string
		id     policies.IdentityID
		pseudo policies.Pseudonym
	}{{"owner", policies.IdentityID(d.Owner), r.Entry.Owner}, {"reader", policies.IdentityID(d.Reader), r.Entry.Reader}} {
		known := s.identities[one.id]
		if known == nil {
			s.notKnown(v, ReasonIdentity, "the %s %s is not enrolled", one.what, one.id)
			continue
		}
		if known.pseudo != one.pseudo {
			v.fault(ReasonPseudonym, "the entry is under another pseudonym than the %s's: it is not in their history", one.what)
		}
		v.needs(known.proof, ReasonIdentitySignature, "the "+one.what+"'s identity does not certify itself")
	}
}

// asked checks session and request, and returns the item that was asked for.
func (s *replay) asked(v *verdict, r *Record, d *evidence.Details, one *session, q *pass, decided time.Time) *policies.ReadItem {
	if one == nil {
		if s.lostSessions != "" && r.Time.Sub(s.lostSession) < policies.SessionLifetime+latestEntry+2*policies.ClockSkew {
			v.unknown(s.lostSessions, "the session %s", d.Session)
		} else {
			v.fault(string(policies.CodeSession), "the session %s was never opened, or is over", d.Session)
		}
		return nil
	}
	v.needs(one.proof, ReasonSessionSignature, "the session is not signed by the reader")
	if one.document.Reader != d.Reader {
		v.fault(ReasonSessionSignature, "the session is of reader %s", one.document.Reader)
	}
	if one.document.Audience != s.log.Document.Vault {
		v.fault(ReasonSessionSignature, "the session is for another vault")
	}
	if one.ended != 0 {
		v.fault(string(policies.CodeSession), "entry %d ended the session: the reader has new keys, or closed the account", one.ended)
	}
	if one.document.Live(decided) != nil {
		v.fault(string(policies.CodeSession), "decided at %s, outside of the session's time", decided.Format(timeFormat))
	}
	if q == nil {
		v.fault(ReasonDetails, "the entry names no nonce")
		return nil
	}
	if q.nonce != nil {
		v.finding.Reasons = append(v.finding.Reasons, *q.nonce)
	}
	if q.document == nil {
		if q.why.Code == ReasonErased {
			v.unknown(q.why.Code, "%s", q.why.Text)
		} else {
			v.fault(q.why.Code, "%s", q.why.Text)
		}
		return nil
	}
	v.needs(q.proof, ReasonRequestSignature, "the request is not signed by the session's key")
	request := q.document
	if request.Audience != s.log.Document.Vault || request.Session != d.Session || request.Nonce != d.Nonce {
		v.fault(ReasonRequest, "the request is for another vault or session, or has another nonce")
	}
	if request.Live(decided) != nil {
		v.fault(string(policies.CodeExpired), "decided at %s, outside of the request's time", decided.Format(timeFormat))
	}
	place := r.Index - q.first
	if place >= uint64(len(request.Items)) {
		v.fault(ReasonRequest, "the request has %d items and this is the entry of item %d", len(request.Items), place+1)
		return nil
	}
	ask := &request.Items[place]
	if ask.Owner != d.Owner || ask.Field != d.Field || ask.Writer() != d.Author {
		v.fault(ReasonRequest, "item %d of the request does not ask for this owner, field and author", place+1)
		return nil
	}
	return ask
}

// granted checks the grant itself, and returns it.
func (s *replay) granted(v *verdict, d *evidence.Details) *grant {
	g := s.grants[d.Grant]
	if by := s.gone.ended[s.entry.Owner]; by != 0 {
		v.fault(string(policies.CodeClosed), "the owner closed their account in entry %d", by)
	}
	if by := s.gone.ended[s.entry.Reader]; by != 0 {
		v.fault(string(policies.CodePartyClosed), "the reader closed their account in entry %d, and all that it had been granted ended with it", by)
	}
	if g == nil {
		s.notKnown(v, string(policies.CodeNoGrant), "the grant %s was never in force, or expired more than a day before", d.Grant)
		return nil
	}
	v.needs(g.proof, ReasonGrantSignature, "the grant is not signed by the owner")
	if c := g.chain; c != nil && c.lost {
		v.unknown(cmp.Or(s.lostReason(), ReasonErased), "%s", c.why.Text)
	} else {
		v.finding.Reasons = c.add(v.finding.Reasons)
	}
	return g
}

// permit decides anew.
func (s *replay) permit(v *verdict, d *evidence.Details, g *grant, q *pass, ask *policies.ReadItem, decided time.Time) {
	use := policies.Use{
		Reader: d.Reader, Purpose: q.document.Purpose, Item: ask, UsedToday: s.used(g, decided),
		Leaf: &policies.Leaf{Slot: policies.Slot{Owner: d.Owner, Field: d.Field, Epoch: d.Epoch, Author: d.Author}},
	}
	var by uint64
	for i := range g.document.Fields {
		if f := &g.document.Fields[i]; f.Field == d.Field && f.Author == d.Author {
			by = g.revoked[i]
		}
	}
	use.Revoked = by != 0
	if one := s.identities[policies.IdentityID(d.Reader)]; one != nil && g.index < one.suspended {
		v.fault(string(policies.CodeSuspended), "the reader suspended all its grants in entry %d", one.suspended)
	}
	if one := s.identities[policies.IdentityID(d.Owner)]; one != nil && one.frozen != 0 {
		v.fault(string(policies.CodeFrozen), "two operators froze the owner in entry %d", one.frozen)
	}
	err := policies.Check(&g.document, use, decided)
	var code policies.Code
	switch {
	case err == nil:
		most, u := g.document.Limits.ReadsPerDay, s.uncounted[parties{v.finding.Owner, v.finding.Reader}]
		if most != 0 && u.day >= dayOf(decided) && use.UsedToday+u.n >= most {
			v.unknown(u.why, "how much was released on that day, of at most %d", most)
		}
	case !errors.As(err, &code):
		v.fault(ReasonDetails, "%v", err)
	case code == policies.CodeRevoked:
		v.fault(string(code), "entry %d revoked it", by)
	case code == policies.CodePurpose:
		v.fault(string(code), "asked for %q, granted for %q", q.document.Purpose, g.document.Purpose)
	case code == policies.CodeLimit:
		v.fault(string(code), "release %d of that day, of at most %d", use.UsedToday+1, g.document.Limits.ReadsPerDay)
	case code == policies.CodeGrantExpired || code == policies.CodeNotYet:
		v.fault(string(code), "decided at %s, granted from %s to %s", decided.Format(timeFormat), unix(g.document.NotBefore), unix(g.document.Expires))
	default:
		v.fault(string(code), "%v", code)
	}
	if ask.Known != 0 && ask.Known == d.Version {
		v.fault(ReasonRequest, "the reader said that it has version %d already", d.Version)
	}
}

func unix(t int64) string { return time.Unix(t, 0).UTC().Format(time.RFC3339) }

// newest checks head and version.
func (s *replay) newest(v *verdict, d *evidence.Details) {
	h := s.heads[headKey{d.Owner, d.Author}]
	if h == nil {
		s.notKnown(v, ReasonHead, "the author never published anything")
		return
	}
	v.needs(h.proof, ReasonHeadSignature, fmt.Sprintf("the manifest of entry %d is not signed by its author", h.index))
	if h.manifest != d.Head {
		s.notKnown(v, ReasonHead, "under the manifest %s; the newest was %s", d.Head, h.manifest)
	}
	if policies.AuthorID(d.Owner) != d.Author {
		s.written(v, d, h)
	}
	if d.Version == 0 || d.Leaf.IsZero() || d.Epoch == 0 {
		v.fault(ReasonDetails, "version, epoch or leaf is missing")
		return
	}
	before := h.released[d.Field]
	switch {
	case d.Version < before.version:
		v.fault(ReasonVersion, "version %d, and version %d was released before", d.Version, before.version)
		return
	case d.Head == before.head && d.Leaf != before.leaf:
		v.fault(ReasonLeaf, "another item of the field was released under the same manifest")
	}
	h.released[d.Field] = released{d.Version, d.Leaf, d.Head}
}

// used is how many of a grant's fields were released to its reader on the day of a time, under whichever grant.
func (s *replay) used(g *grant, t time.Time) (n uint64) {
	sp := s.spent[pair{g.document.Owner, g.document.Reader}]
	if sp == nil || sp.day != dayOf(t) {
		return 0
	}
	for i := range g.document.Fields {
		n += sp.used[written{g.document.Fields[i].Field, g.document.Fields[i].Author}]
	}
	return n
}

func (s *replay) spend(g *grant, d *evidence.Details, t time.Time) {
	k := pair{g.document.Owner, g.document.Reader}
	sp := s.spent[k]
	if sp == nil {
		sp = &spent{used: map[written]uint64{}}
		s.spent[k] = sp
	}
	if day := dayOf(t); sp.day != day {
		sp.day = day
		clear(sp.used)
	}
	sp.used[written{d.Field, d.Author}]++
}
