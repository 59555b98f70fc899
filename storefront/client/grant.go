package client

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // #nosec G505 -- for OAEP, see wrap
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"hash"
	"slices"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// GrantOptions are the terms of a grant.
type GrantOptions struct {
	Purpose     string           // what for; the reader must name the same. Empty: "general"
	Begins      time.Time        // from when on; zero: now
	Duration    time.Duration    // how long; zero: one year
	ReadsPerDay uint64           // fields released per UTC day; zero: no limit
	Custody     policies.Custody // empty: resident. Sealed: a copy of the key that the host kept outlives a revocation, until the sealing key is replaced
}

// sealedMeans is what an owner who chooses custody sealed should know, in a sentence.
const sealedMeans = "custody sealed: the key of the grant rests outside the token, where only the token can use it; " +
	"when you revoke, a copy of it that the vault's host kept dies only when the token's sealing key is replaced, if the host is honest then; what protects you besides are the vault's records and the move to new keys"

// terms are the same, in the form of the document.
type terms struct {
	Purpose     string           `json:"purpose"`
	NotBefore   int64            `json:"not_before"`
	Expires     int64            `json:"expires"`
	ReadsPerDay uint64           `json:"reads_per_day,omitzero"`
	Custody     policies.Custody `json:"custody"`
}

// DefaultPurpose is the purpose of a grant that names none.
const DefaultPurpose = "general"

// Grant lets a reader read fields. A field that the reader had already is granted anew under the new terms, and its older grant ends.
func (o *Owner) Grant(ctx context.Context, reader policies.ReaderID, fields []policies.Field, opts GrantOptions) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, _, err := o.planGrant(reader, fields, opts); err != nil {
		return err
	}
	return o.told(o.saveAndRun(ctx))
}

// planGrant puts a grant in the queue, and returns its stroke and when it ends. The caller saves.
func (o *Owner) planGrant(reader policies.ReaderID, fields []policies.Field, opts GrantOptions) (stroke policies.DocumentID, expires int64, err error) {
	if _, ok := o.contact(reader); !ok {
		return stroke, 0, ErrNoContact
	}
	if len(fields) == 0 || len(fields) > policies.MaxGrantFields {
		return stroke, 0, fmt.Errorf("%w: a grant names 1 to %d fields", policies.ErrMalformed, policies.MaxGrantFields)
	}
	view := o.view()
	for _, f := range fields {
		if _, ok := view[f]; !ok && !o.writable(f) && !o.comes(f) {
			return stroke, 0, fmt.Errorf("%s: %w", f, ErrNoField)
		}
	}
	t, err := o.newTerms(opts)
	if err != nil {
		return stroke, 0, err
	}
	stroke = policies.NewDocumentID()
	fields = slices.Compact(slices.Sorted(slices.Values(fields)))
	o.state.Tasks = append(o.state.Tasks,
		task{Kind: taskGrant, Stroke: stroke, Reader: reader, Fields: fields, Terms: t, Wished: o.now().Unix()},
		task{Kind: taskRevoke, Stroke: stroke, Reason: policies.ReasonSuperseded},
		task{Kind: taskFollow, Stroke: stroke, Fields: fields})
	return stroke, t.Expires, nil
}

// newTerms fills in what options leave out.
func (o *Owner) newTerms(opts GrantOptions) (terms, error) {
	// Clocks differ: without the minute, a vault whose clock is behind would refuse the first reads.
	begins, from := o.now(), o.now().Add(-policies.ClockSkew)
	if !opts.Begins.IsZero() {
		begins, from = opts.Begins, opts.Begins
	}
	t := terms{Purpose: opts.Purpose, NotBefore: from.Unix(), ReadsPerDay: opts.ReadsPerDay, Custody: opts.Custody}
	if t.Purpose == "" {
		t.Purpose = DefaultPurpose
	}
	if t.Custody == "" {
		t.Custody = policies.CustodyResident
	}
	if opts.Duration == 0 {
		opts.Duration = 365 * 24 * time.Hour
	}
	t.Expires = begins.Add(opts.Duration).Unix()
	if opts.Duration < 0 || len(t.Purpose) > 200 {
		return terms{}, fmt.Errorf("%w: a grant lasts for a while, and its purpose has at most 200 bytes", policies.ErrMalformed)
	}
	return t, nil
}

// GrantInfo is one granted field as this device knows it.
type GrantInfo struct {
	Reader      policies.ReaderID   `json:"reader"`
	Alias       string              `json:"alias,omitzero"`
	Field       policies.Field      `json:"field"`
	Purpose     string              `json:"purpose"`
	Expires     time.Time           `json:"expires"`
	ReadsPerDay uint64              `json:"reads_per_day,omitzero"`
	Custody     policies.Custody    `json:"custody"`
	Status      string              `json:"status"` // "in force", "expired", "revoked", "closed" (the reader closed their account), "pending", "NOT STOPPED YET"
	Grant       policies.DocumentID `json:"grant,omitzero"`
}

// Grants lists what was granted, newest last; without all only what is in force or on its way.
func (o *Owner) Grants(all bool) []GrantInfo {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []GrantInfo
	alias := func(r policies.ReaderID) string {
		if c, ok := o.contact(r); ok {
			return c.Alias
		}
		return ""
	}
	for i := range o.state.Grants {
		g := &o.state.Grants[i]
		for j := range g.Doc.Fields {
			f := &g.Doc.Fields[j]
			if f.Author != o.author() { // a key besides, for what others write in the same field
				continue
			}
			info := GrantInfo{
				Reader: g.Doc.Reader, Alias: alias(g.Doc.Reader), Field: f.Field, Purpose: g.Doc.Purpose, Expires: time.Unix(g.Doc.Expires, 0).UTC(),
				ReadsPerDay: g.Doc.Limits.ReadsPerDay, Custody: g.Doc.Custody, Grant: g.Doc.ID, Status: "in force",
			}
			switch {
			case slices.Contains(g.Gone, policies.RevokedItem{Grant: g.Doc.ID, Field: f.Field, Author: f.Author}):
				info.Status = "closed"
			case !g.live(f):
				info.Status = "revoked"
			case o.stopping(g.Doc.Reader, f.Field):
				info.Status = "NOT STOPPED YET"
			case o.now().Unix() >= g.Doc.Expires:
				info.Status = "expired"
			}
			if all || info.Status == "in force" || info.Status == "NOT STOPPED YET" {
				out = append(out, info)
			}
		}
	}
	for i := range o.state.Tasks {
		t := &o.state.Tasks[i]
		if t.Kind != taskGrant || t.NextEpoch || t.Cancelled || len(t.Slots) > 0 {
			continue
		}
		for _, f := range t.Fields {
			out = append(out, GrantInfo{
				Reader: t.Reader, Alias: alias(t.Reader), Field: f, Purpose: t.Terms.Purpose, Expires: time.Unix(t.Terms.Expires, 0).UTC(),
				ReadsPerDay: t.Terms.ReadsPerDay, Custody: t.Terms.Custody, Status: "pending",
			})
		}
	}
	return out
}

// stopping reports whether a revocation of the field waits for its receipt.
func (o *Owner) stopping(reader policies.ReaderID, f policies.Field) bool {
	return slices.ContainsFunc(o.state.Tasks, func(t task) bool {
		return t.Kind == taskRevoke && t.Reason == policies.ReasonWithdrawn && t.Reader == reader && (len(t.Fields) == 0 || slices.Contains(t.Fields, f))
	})
}

// RevokeOptions change what a revocation does besides.
type RevokeOptions struct {
	// KeepEpoch leaves the fields under their keys. The reader is stopped all the same; what a token that was broken open
	// later would give away then includes what is written from now on.
	KeepEpoch bool
}

// Revoke stops a reader from reading fields, all of them if none is named, and rotates them for those who may still read. It returns
// nil when a verified receipt says that the vault recorded it and everything after it is done too. [ErrNotStopped]: nothing proves that the
// reader is stopped; it is kept and tried again. [ErrEnded]: stopped with all others. [ErrNotRotated]: stopped, and the rest is tried again, unless it is [ErrRotationRefused].
func (o *Owner) Revoke(ctx context.Context, reader policies.ReaderID, fields []policies.Field, opts RevokeOptions) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	stroke := policies.NewDocumentID()
	unsent, sent := o.cancel(stroke, reader, fields, taskGrant)
	ended := o.granted(reader, fields)
	if len(ended) == 0 && !sent {
		// Another device may have granted what this one does not know of.
		if err := o.afterClosing(ctx, o.syncWhole(ctx)); errors.Is(err, ErrEnded) {
			return err
		} else if err != nil {
			o.state.Tasks = slices.Insert(o.state.Tasks, 0, task{
				Kind: taskRevoke, Stroke: stroke, Reader: reader, Fields: fields, Wished: o.now().Unix(), Reason: policies.ReasonWithdrawn, Blind: true, Turn: !opts.KeepEpoch,
			})
			return errors.Join(fmt.Errorf("%w: this device knows of no such grant, and could not ask for newer ones: %w", ErrNotStopped, err), o.save())
		}
		if ended = o.granted(reader, fields); len(ended) == 0 {
			if unsent { // what was to be granted never left this device
				return o.save()
			}
			return fmt.Errorf("%w: this reader has no grant of that", policies.CodeNoGrant)
		}
	}
	// To the front: nothing that waits may hold a revocation up.
	// If all that this device knows of is a grant of unknown outcome, another device may have granted what it has not seen.
	blind := len(ended) == 0
	front := []task{{
		Kind: taskRevoke, Stroke: stroke, Reader: reader, Fields: fields, Wished: o.now().Unix(), Reason: policies.ReasonWithdrawn, Blind: blind, Turn: blind && !opts.KeepEpoch,
	}}
	rotation, before := policies.NewDocumentID(), map[policies.Field]uint64{}
	if !opts.KeepEpoch {
		view := o.view()
		ended = slices.DeleteFunc(ended, func(f policies.Field) bool { _, ok := view[f]; return !ok && !o.writable(f) })
		if len(ended) > 0 {
			o.state.Tasks = append(o.state.Tasks, task{Kind: taskRotate, Stroke: rotation, Fields: ended})
			for _, f := range ended {
				before[f] = o.fieldEpoch(f)
			}
		}
	}
	o.state.Tasks = append(front, o.state.Tasks...)
	err := o.saveAndRun(ctx)
	if slices.ContainsFunc(o.state.Tasks, func(t task) bool { return t.Stroke == stroke }) {
		if errors.Is(err, ErrNotStopped) {
			return err
		}
		return fmt.Errorf("%w: %w", ErrNotStopped, err)
	}
	waits := slices.ContainsFunc(o.state.Tasks, func(t task) bool { return t.Stroke == rotation })
	if refused(err) && !waits && slices.ContainsFunc(ended, func(f policies.Field) bool { return before[f] == o.fieldEpoch(f) }) {
		return fmt.Errorf("%w: %w", ErrRotationRefused, err)
	}
	if errors.Is(err, ErrEnded) || errors.Is(err, ErrContactClosed) && !waits { // what waited to be given to somebody else
		return err
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotRotated, err)
	}
	return nil
}

// cancel takes back what tasks of some kinds are to give somebody. What was never sent is simply not made. What was sent, with an unknown outcome, must be settled before
// anybody says that it is stopped.
func (o *Owner) cancel(stroke policies.DocumentID, reader policies.ReaderID, fields []policies.Field, kinds ...string) (unsent, sent bool) {
	for i := range o.state.Tasks {
		t := &o.state.Tasks[i]
		if !slices.Contains(kinds, t.Kind) || t.Reader != reader || !covers(fields, t.Fields) {
			continue
		}
		kept := without(t.Fields, fields)
		if len(fields) == 0 {
			kept = nil
		}
		if len(t.Attempts) == 0 {
			t.Fields, unsent = kept, true
			continue
		}
		if t.Cancelled { // in part, before
			kept = without(kept, t.stopped())
		}
		t.Cancelled, t.Stop, t.Stroke, sent = true, without(t.Fields, kept), stroke, true
	}
	o.state.Tasks = slices.DeleteFunc(o.state.Tasks, func(t task) bool { return slices.Contains(kinds, t.Kind) && t.Reader == reader && len(t.Fields) == 0 })
	return unsent, sent
}

// covers reports whether fields, or all if there are none, include one of those named.
func covers(fields, of []policies.Field) bool {
	return len(fields) == 0 || slices.ContainsFunc(of, func(f policies.Field) bool { return slices.Contains(fields, f) })
}

// granted lists the fields, among those named or all, that a reader has a live grant for.
func (o *Owner) granted(reader policies.ReaderID, fields []policies.Field) []policies.Field {
	var out []policies.Field
	for i := range o.state.Grants {
		g := &o.state.Grants[i]
		for j := range g.Doc.Fields {
			if f := &g.Doc.Fields[j]; g.Doc.Reader == reader && g.live(f) && (len(fields) == 0 || slices.Contains(fields, f.Field)) {
				out = append(out, f.Field)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// buildGrant makes the grant's document and, bound to its hash, the wrapped keys. The secret, every d and every rk exist
// within this function only.
func (o *Owner) buildGrant(t *task, v *policies.VaultDocument, link policies.Link) (*envelope.Envelope, []vaultapi.SealedKey, error) {
	c, ok := o.contact(t.Reader)
	if !ok {
		return nil, nil, ErrNoContact
	}
	rel, relHash, err := c.relationship()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: relationship: %w", ErrState, err)
	}
	g := &policies.Grant{
		Header: policies.NewHeader("grant", o.decided(t)), Audience: v.Vault, Owner: o.ID(), Link: link, Reader: t.Reader, Relationship: relHash,
		Custody: t.Terms.Custody, Rights: []policies.Right{policies.RightRead}, Purpose: t.Terms.Purpose,
		NotBefore: t.Terms.NotBefore, Expires: t.Terms.Expires, Limits: policies.Limits{ReadsPerDay: t.Terms.ReadsPerDay},
	}
	ct, secret, err := pre.NewGrantSecret(rel.KEMKey, nil)
	if err != nil {
		return nil, nil, err
	}
	defer secret.Zero()
	g.Ciphertext = ct
	epochs := map[policies.Field]uint64{}
	for _, l := range o.leaves() {
		epochs[l.Field] = l.Epoch
	}
	type wrapped struct {
		slot  policies.Slot
		token string
		blob  []byte
	}
	var blobs []wrapped
	defer func() {
		for _, b := range blobs {
			clear(b.blob)
		}
	}()
	for _, slot := range o.grantSlots(t, epochs) {
		granted := policies.GrantedField{Field: slot.Field, Epoch: slot.Epoch, Author: slot.Author}
		for _, token := range v.Tokens {
			ik, ok := v.ImportKey(token.Serial, t.Terms.Custody)
			if !ok {
				return nil, nil, notOffered(v, token.Serial, t.Terms.Custody)
			}
			blob, err := o.wrap(secret, g.ID, t.Reader, slot, ik)
			if err != nil {
				return nil, nil, err
			}
			blobs = append(blobs, wrapped{slot, token.Serial, blob})
			granted.Keys = append(granted.Keys, policies.WrappedKey{
				Token: token.Serial, ImportKey: policies.HashKey(ik.PublicKey), Path: ik.Path, Digest: sha256.Sum256(blob),
			})
		}
		g.Fields = append(g.Fields, granted)
	}
	e, err := policies.Sign(o.signing, g)
	if err != nil {
		return nil, nil, err
	}
	keys := make([]vaultapi.SealedKey, len(blobs))
	for i, b := range blobs {
		info, err := pre.ImportInfo(v.Vault, policies.Hash(e.Hash), b.slot.Field, b.slot.Epoch, b.slot.Author)
		if err != nil {
			return nil, nil, err
		}
		sealed, err := pre.SealBlob(v.ImportHPKE, info, b.blob)
		if err != nil {
			return nil, nil, err
		}
		keys[i] = vaultapi.SealedKey{Field: b.slot.Field, Author: b.slot.Author, Token: b.token, Sealed: sealed}
	}
	return e, keys, nil
}

// grantSlots are the slots that a grant is for: those that the task names, or the owner's of its fields and one of each who writes in them: where there is something to
// read. The others follow.
func (o *Owner) grantSlots(t *task, epochs map[policies.Field]uint64) (out []policies.Slot) {
	for _, s := range t.Slots {
		out = append(out, policies.Slot{Owner: o.ID(), Field: s.Field, Epoch: s.Epoch, Author: s.Author})
	}
	if len(t.Slots) > 0 {
		return out
	}
	for _, f := range t.Fields {
		epoch, ok := epochs[f]
		if !ok {
			epoch = o.firstEpoch(f)
		} else if t.NextEpoch {
			epoch++
		}
		out = append(out, policies.Slot{Owner: o.ID(), Field: f, Epoch: epoch, Author: o.author()})
	}
	// Others' items do not move with the owner's. They are named all the same: by the newest grant readers learn who writes.
	for _, f := range t.Fields {
		first := map[policies.AuthorID]uint64{}
		for _, s := range o.writeSlots(f) {
			if l, _, there := o.written(s.Author, f); there && l.Epoch == s.Epoch || first[s.Author] == 0 {
				first[s.Author] = s.Epoch
			}
		}
		if len(out)+len(first) > policies.MaxGrantFields {
			break // what follows it fills the rest in
		}
		for author, epoch := range first {
			out = append(out, policies.Slot{Owner: o.ID(), Field: f, Epoch: epoch, Author: author})
		}
	}
	return out
}

// notOffered says what a vault offers instead of a custody. What is weaker is never chosen for the owner.
func notOffered(v *policies.VaultDocument, token string, custody policies.Custody) error {
	if _, ok := v.ImportKey(token, policies.CustodySealed); ok && custody == policies.CustodyResident {
		return fmt.Errorf("%w: it offers custody sealed only, which must be chosen on purpose; %s", policies.CodeCustody, sealedMeans)
	}
	return fmt.Errorf("%w: it does not offer custody %s", policies.CodeCustody, custody)
}

// wrap makes rk of one field and wraps it under a token's import key: RSA-OAEP with MGF1 over the same hash and an empty label,
// straight around the 67-byte PKCS#8 form.
func (o *Owner) wrap(secret *pre.GrantSecret, grant policies.DocumentID, reader policies.ReaderID, slot policies.Slot, ik policies.ImportKey) ([]byte, error) {
	if ik.Path != "oaep-direct" {
		return nil, fmt.Errorf("%w: this program does not know the import path %q", policies.CodeCustody, ik.Path)
	}
	var oaep hash.Hash
	switch ik.OAEPHash {
	case "SHA-1":
		oaep = sha1.New() // #nosec G401 -- OAEP needs no collision resistance, and SoftHSM knows no other hash
	case "SHA-256":
		oaep = sha256.New()
	default:
		return nil, fmt.Errorf("%w: this program does not know OAEP with %q", policies.CodeCustody, ik.OAEPHash)
	}
	parsed, err := x509.ParsePKIXPublicKey(ik.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("%w: import key: %w", policies.CodeCustody, err)
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok || public.N.BitLen() != 3072 || public.E != 65537 {
		return nil, fmt.Errorf("%w: the import key is not RSA of 3,072 bits with e = 65537", policies.CodeCustody)
	}
	a, err := o.keyFor(slot)
	if err != nil {
		return nil, err
	}
	defer a.Zero()
	rk, err := secret.ReEncryptionKey(grant, reader, a)
	if err != nil {
		return nil, err
	}
	defer rk.Zero()
	pkcs8 := rk.PKCS8()
	defer clear(pkcs8)
	return rsa.EncryptOAEP(oaep, rand.Reader, public, pkcs8, nil)
}
