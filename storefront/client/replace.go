package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/succession"
	"github.com/sallyport/sallyport/policies/writing"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/pre"
)

// Replacing the root. The order is that of what must stop first:
//
//  1. A new root and a new recovery key are drawn, and written to a backup before anything else.
//  2. The succession. From its acceptance on the vault takes nothing that the old keys sign, so whoever has the old device changes nothing more.
//  3. What is under keys of the old root moves to keys of the new one, in the epoch after: first the grants, then the head that needs them, then the old
//     grants end. That is a rotation with two roots, and readers notice nothing of it.
//  4. The same values are sealed anew. What the old root opened is not stored any more after that.
//  5. The old root is forgotten.
//
// Each step is a task in the stored queue, so a process that is killed at any line goes on with the next command. Which of two roots a field is under is found
// out by its capsule, and stored nowhere: nothing can be wrong about it.

// replacement is a change of the root that has begun and is not in force. It is in the backup that was written before.
type replacement struct {
	Root      []byte            `json:"root"`
	Recovery  []byte            `json:"recovery"`           // seed of the recovery key from then on
	Authority []byte            `json:"authority,omitzero"` // seed of the recovery key until then; none: it is announced
	Reason    succession.Reason `json:"reason"`
	Away      bool              `json:"away,omitzero"`    // the backup lies elsewhere, so the recovery key does not stay here
	Begun     int64             `json:"begun,omitzero"`   // Unix seconds; what it sends bears this time
	Notice    policies.Hash     `json:"notice,omitzero"`  // in force, of this replacement
	Since     int64             `json:"since,omitzero"`   // when, Unix seconds
	Unheard   bool              `json:"unheard,omitzero"` // a storefront alone refused to announce it: the next sync tries again

	// Of a reader: it suspends its grants first.
	Suspended bool           `json:"suspended,omitzero"`
	Sent      jsontext.Value `json:"sent,omitzero"` // envelope of the document that is on its way
}

func (r *replacement) zero() {
	clear(r.Root)
	clear(r.Recovery)
	clear(r.Authority)
}

// announced is a change of keys without the recovery key that the chain announces.
type announced struct {
	Notice policies.Hash `json:"notice"`
	Since  int64         `json:"since"` // Unix seconds, by the clock of the device that made it
	Own    bool          `json:"own,omitzero"`
}

// ReplaceOptions say why and with what.
type ReplaceOptions struct {
	Reason   succession.Reason
	Recovery []byte // plaintext of an earlier backup, for the recovery key in it; nil: this device has it still
	Announce bool   // without the recovery key: in 72 hours, if nobody objects
	Away     bool   // the new backup lies elsewhere, so the new recovery key does not stay on this device
}

// Replace gives this identity a new root. write must seal the backup and store it; no other backup, and no other device, is of use from then on. It returns nil when
// everything is done, or with Announce when it is announced; [Owner.Sync] goes on with what is not.
func (o *Owner) Replace(ctx context.Context, opts ReplaceOptions, write func(plain []byte) error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	waits := o.announces()
	if err := o.changing(); err != nil && (opts.Announce || !errors.Is(err, ErrAnnounced)) {
		return err
	}
	if !waits { // else what waits in the queue is not to be sent any more
		if err := o.run(ctx); err != nil {
			return err
		}
	}
	if err := o.following(ctx, func() error { return o.syncChain(ctx) }); err != nil {
		return err
	}
	if o.former != nil && !o.state.Moved { // another device carried out what this one had announced
		return ErrReplacing
	}
	r := &replacement{Reason: opts.Reason, Away: opts.Away, Begun: o.now().Unix()}
	if !opts.Announce {
		var err error
		if r.Authority, err = o.recoverySeed(opts.Recovery); err != nil {
			return err
		}
	}
	root, err := pre.NewRoot()
	if err != nil {
		return err
	}
	defer root.Zero()
	r.Root, r.Recovery = root.Bytes(), make([]byte, envelope.SeedSize)
	rand.Read(r.Recovery)
	b, err := o.backup()
	if err != nil {
		return err
	}
	b.Replacing = r
	// Killed after this line, the backup is of a replacement that has not begun, and a device that is restored from it carries it out.
	if err := b.write(write); err != nil {
		return err
	}
	// What this device had announced is void when the succession is in force, and until then in the backup of then alone. Another root takes its place, as somebody may have that one by now.
	o.giveUpAnnounced()
	o.state.Replacing = r
	o.state.Tasks = append(o.state.Tasks, task{Kind: taskSucceed, Stroke: policies.NewDocumentID()})
	if opts.Announce {
		o.state.Tasks[len(o.state.Tasks)-1].Kind = taskNotice
	}
	if err := o.saveAndRun(ctx); err != nil {
		return err
	}
	o.showSide(ctx)
	return nil
}

// ErrAnnounced: this device announced a change of the root that is not in force yet.
var ErrAnnounced = fmt.Errorf("%w: this device announced it, and it is not in force yet", policies.CodeSuccessionPending)

// ErrReplacing: a change of the root has begun, and the next sync goes on with it.
var ErrReplacing = fmt.Errorf("%w: a replacement is under way; sync goes on with it", policies.CodeSuccessionPending)

// announces reports whether a replacement of this device's, or of the backup it was made from, waits without the recovery key.
func (o *Owner) announces() bool {
	return o.state.Replacing != nil && len(o.state.Replacing.Authority) == 0
}

// giveUpAnnounced forgets what this device announced, or was about to. Should somebody hold a notice back who has it, then what comes next takes its place in the chain.
func (o *Owner) giveUpAnnounced() {
	if !o.announces() {
		return
	}
	o.state.Tasks = slices.DeleteFunc(o.state.Tasks, func(t task) bool { return t.Kind == taskNotice && !t.TakeBack || t.Kind == taskSucceed })
	o.state.Replacing.zero()
	o.state.Replacing = nil
}

// ErrNotAnnounced: no change of the root is announced, as the chain says that the vault confirmed. It is a policies.CodeNotFound too.
var ErrNotAnnounced = fmt.Errorf("%w: nothing is announced", policies.CodeNotFound)

// CancelReplacement takes back a change of keys that was announced, by this device or by whoever has its keys, or that this device was about to announce.
func (o *Owner) CancelReplacement(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.following(ctx, func() error { return o.syncChain(ctx) }); err != nil {
		return err
	}
	r := o.state.Replacing
	own := r != nil && len(r.Authority) == 0
	if o.state.Announced == nil && !own {
		return ErrNotAnnounced
	}
	// What waits of this device's own is not sent. Should somebody hold it back who has it, then this takes its place in the chain.
	o.state.Tasks = slices.DeleteFunc(o.state.Tasks, func(t task) bool { return own && (t.Kind == taskNotice || t.Kind == taskSucceed) })
	back := task{Kind: taskNotice, Stroke: policies.NewDocumentID(), TakeBack: true}
	if o.state.Announced != nil {
		back.Notice = o.state.Announced.Notice
	}
	o.state.Tasks = append(o.state.Tasks, back)
	return o.saveAndRun(ctx)
}

// Announced tells of a change of keys without the recovery key that this device knows of: when it can take effect, and whether it is this device's own. The
// zero time: there is none.
func (o *Owner) Announced() (effective time.Time, own bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if a := o.state.Announced; a != nil {
		return time.Unix(a.Since, 0).Add(succession.Wait), a.Own
	}
	return time.Time{}, false
}

// Generation counts the replacements that are in force, as this device knows.
func (o *Owner) Generation() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.line.Newest().Generation
}

// Replacing reports whether a replacement has begun that is not done. One that is announced has not.
func (o *Owner) Replacing() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.state.Replacing
	return r != nil && len(r.Authority) > 0 || o.former != nil && !o.state.Moved
}

// recoverySeed finds the recovery key in force: on this device, or in an earlier backup.
func (d *device) recoverySeed(earlier []byte) ([]byte, error) {
	seeds := [][]byte{d.base.Recovery}
	if earlier != nil {
		b, err := parseBackup(earlier, d.base.Role)
		if err != nil {
			return nil, err
		}
		defer b.zero()
		seeds = append(seeds, b.Recovery)
		if b.Replacing != nil {
			seeds = append(seeds, b.Replacing.Recovery)
		}
	}
	for _, seed := range seeds {
		if len(seed) != envelope.SeedSize {
			continue
		}
		key := recoveryKey(seed)
		public := policies.HashKey(key.Public().Bytes())
		key.Zero()
		if public == d.line.Newest().Recovery {
			return bytes.Clone(seed), nil
		}
	}
	return nil, ErrRecovery
}

func recoveryKey(seed []byte) *envelope.PrivateKey {
	var s [envelope.SeedSize]byte
	copy(s[:], seed)
	defer clear(s[:])
	return envelope.NewPrivateKey(&s)
}

// successor is the succession that a replacement leads to, but for its place in the chain, and its signing key.
func (o *Owner) successor(r *replacement) (*succession.Document, *envelope.PrivateKey, error) {
	return o.device.successor(r, o.nextLink())
}

// renewing is the header of a document of a replacement. It is the same on every device that is restored from the backup, so each makes the same document for a place in the chain, and the
// vault answers it again. Else a document that the vault accepted and the storefront was killed before it stored would be lost with the device that sent it, and no key of use.
func (d *device) renewing(r *replacement, docType string, next *envelope.PrivateKey, link policies.Link) policies.Header {
	if r.Begun == 0 { // by a program that did not say when
		return policies.NewHeader(docType, d.now())
	}
	id := sha256.Sum256(policies.Encode("replacement", []byte(docType), next.Public().Bytes(), link.Prev[:]))
	return policies.Header{Type: docType, Suite: policies.Suite, ID: id, Time: r.Begun}
}

func (d *device) successor(r *replacement, link policies.Link) (*succession.Document, *envelope.PrivateKey, error) {
	root, err := pre.ParseRoot(r.Root)
	if err != nil || len(r.Recovery) != envelope.SeedSize {
		return nil, nil, fmt.Errorf("%w: a replacement without its root", ErrState)
	}
	defer root.Zero()
	next, recovery := signingKey(root), recoveryKey(r.Recovery)
	defer recovery.Zero()
	kem, login := pre.NewBlobKey(root.KEMSeed()), pre.NewLoginKey(root.LoginSeed())
	defer kem.Zero()
	defer login.Zero()
	h := d.line.Newest()
	return &succession.Document{
		Header: d.renewing(r, "succession", next, link), Audience: d.base.Network.Vault, Identity: d.id, Link: link,
		Generation: h.Generation + 1, Previous: h.Document, SigningKey: next.Public().Bytes(), KEMKey: kem.Public(), LoginKey: login.Public(),
		RecoveryHash: policies.HashKey(recovery.Public().Bytes()), Notice: r.Notice, Reason: r.Reason,
	}, next, nil
}

func (o *Owner) buildSuccession(*policies.VaultDocument) (*envelope.Envelope, error) {
	r := o.state.Replacing
	if r == nil {
		return nil, nil
	}
	d, next, err := o.successor(r)
	if err != nil {
		return nil, err
	}
	defer next.Zero()
	if len(r.Authority) == 0 {
		return succession.Sign(d, next, o.signing)
	}
	authority := recoveryKey(r.Authority)
	defer authority.Zero()
	d.RecoveryKey, d.Notice = authority.Public().Bytes(), policies.Hash{}
	return succession.Sign(d, next, authority)
}

func (o *Owner) buildNotice(t *task, v *policies.VaultDocument) (*envelope.Envelope, error) {
	n := &succession.Notice{Header: policies.NewHeader("succession-notice", o.now()), Audience: v.Vault, Identity: o.id, Link: o.nextLink()}
	if t.TakeBack && !t.Notice.IsZero() && (o.state.Announced == nil || o.state.Announced.Notice != t.Notice) {
		return nil, nil
	}
	if !t.TakeBack {
		if r, a := o.state.Replacing, o.state.Announced; r == nil || a != nil && a.Own && a.Notice == r.Notice { // the chain has it, whoever hid that
			return nil, nil
		}
		d, next, err := o.successor(o.state.Replacing)
		if err != nil {
			return nil, err
		}
		next.Zero()
		n.Successor = d.Successor()
	}
	return policies.Sign(o.signing, n)
}

// deliverSuccession takes the storefront's route, without a login, which a thief may have and this device soon has not, and else the vault's own, also if the storefront
// says that the vault refuses. vaults reports whether the outcome is the vault's own word.
func (o *Owner) deliverSuccession(ctx context.Context, v *policies.VaultDocument, e *envelope.Envelope) (vaults bool, err error) {
	first, cancel := context.WithTimeout(ctx, routeTimeout)
	err = o.post(first, v, request{method: "POST", path: path(api.PathSuccessions, o.id.String()), raw: e.Raw}, e)
	cancel()
	if err == nil || o.wire.owners == nil || o.provenMoved(ctx, v, err, policies.Hash(e.Hash)) {
		return false, err
	}
	second, cancel := context.WithTimeout(ctx, 2*routeTimeout)
	defer cancel()
	in := &vaultapi.Submission{Envelope: e.Raw}
	err2 := o.post(second, v, request{method: http.MethodPost, path: vaultapi.PathDocuments, base: o.wire.owners, in: in}, e)
	decided := func(err error) bool {
		return refused(err) || errors.Is(err, policies.CodeSuccessionPending) || errors.Is(err, policies.CodeExpired)
	}
	switch {
	case err2 == nil:
		o.state.Untold = append(o.state.Untold, e.Raw)
		return true, nil
	case errors.Is(err2, policies.CodeChain) || decided(err) && decided(err2):
		return true, err2
	case decided(err):
		return false, err
	}
	return decided(err2), fmt.Errorf("%w; and over the second route: %w", err, err2)
}

// errHearsay: a storefront says that the vault refuses, and the vault itself did not say it.
var errHearsay = errors.New("a storefront says so, and the vault itself was not heard")

// hearsay goes by a storefront's word that a succession, or the notice of one, is refused. What this device's chain says, which the vault confirmed, may be why; else the replacement is kept, and the
// next sync sends it again: nobody but the vault has a device forget it. An objection waits in its place.
func (a *attempt) hearsay(ctx context.Context, err error) error {
	syncErr := a.syncChain(ctx)
	switch waits := a.retake(); {
	case syncErr != nil && !waits:
		return errors.Join(err, syncErr)
	case syncErr != nil:
		err = errors.Join(err, syncErr)
	case !waits: // it was accepted
		return nil
	case a.t.Kind == taskNotice && !a.t.TakeBack && a.state.Announced != nil && !a.state.Announced.Own:
		a.drop(a.stroke)
		return errors.Join(err, a.save())
	}
	if a.t.TakeBack {
		return err
	}
	if r := a.state.Replacing; r != nil {
		r.Unheard = a.t.Kind == taskNotice
	}
	a.end()
	return errors.Join(err, a.save())
}

// errOlder: the vault itself says that a newer succession than the one which waits came first.
var errOlder = errors.New("another succession came first")

// older finds out whose succession came first, when the vault said over its own listener that one did: of the root that waits here too, sent by a device that was made from the same backup,
// which this one then learns of; or of another root, and then this device is of no use any more. It is the vault that answers this too: a storefront that says so could forge it.
func (o *Owner) older(ctx context.Context, v *policies.VaultDocument, stroke policies.DocumentID, cause error) error {
	_, err := o.ask(ctx, v)
	switch {
	case errors.Is(err, policies.CodeKeyReplaced), errors.Is(err, policies.CodeSignature): // in force are neither the keys of this device nor those that wait
		o.drop(stroke)
		return errors.Join(fmt.Errorf("%w: %w", ErrReplaced, cause), o.save())
	case err != nil:
		return fmt.Errorf("%w; and asking the vault which: %w", cause, err)
	}
	return o.recover(ctx, cause)
}

// applySuccession takes over a succession or a notice of the chain.
func (o *Owner) applySuccession(e *envelope.Envelope) error {
	switch e.Type {
	case "succession-notice":
		n, err := policies.Decode[succession.Notice](e)
		if err != nil {
			return err
		}
		r := o.state.Replacing
		if n.Successor.IsZero() {
			o.state.Announced = nil
			if r != nil && len(r.Authority) == 0 {
				r.zero()
				o.state.Replacing = nil
			}
			return nil
		}
		o.state.Announced = &announced{Notice: policies.Hash(e.Hash), Since: n.Time}
		if r == nil || len(r.Authority) > 0 {
			return nil
		}
		d, next, err := o.successor(r)
		if err != nil {
			return err
		}
		next.Zero()
		if d.Successor() == n.Successor {
			r.Notice, r.Since, r.Unheard, o.state.Announced.Own = policies.Hash(e.Hash), n.Time, false, true
		}
	case "succession":
		o.state.Announced = nil // whatever was announced before is void
		// What the old root sealed in an epoch no key of the new one ever stands for. A restored device may have the new root before it has read what came before it in the chain.
		for i := range o.state.Epochs {
			o.state.Epochs[i].Epoch++
		}
		if slices.ContainsFunc(o.line.Holders, func(h succession.Holder) bool { return h.Document == policies.Hash(e.Hash) }) {
			return nil
		}
		line := o.line
		if _, err := line.Take(e); err != nil {
			return fmt.Errorf("%w: %w", ErrUntrue, err)
		}
		if err := o.install(line, append(slices.Clone(o.state.Successions), e.Raw)); err != nil {
			return err
		}
		o.goOn()
	}
	return nil
}

// install puts the new root in force, if it is the one of the newest succession of a line.
func (o *Owner) install(line succession.Line, raw []jsontext.Value) error {
	r := o.state.Replacing
	if r == nil {
		return ErrReplaced
	}
	root, err := pre.ParseRoot(r.Root)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	signing := signingKey(root)
	if !bytes.Equal(signing.Public().Bytes(), line.Newest().SigningKey) {
		return ErrReplaced
	}
	if o.former != nil { // what others wrote is under it still
		o.earlier, o.state.Earlier = slices.Insert(o.earlier, 0, o.former), slices.Insert(o.state.Earlier, 0, o.state.Former)
	}
	o.base.keepKEM(o.root, o.now())
	o.former, o.state.Former = o.root, o.state.Root
	o.root, o.state.Root = root, r.Root
	o.under = nil
	o.ahead = ahead{}
	o.signing.Zero()
	o.signing = signing
	clear(o.state.Recovery)
	clear(r.Authority)
	if o.state.Recovery = r.Recovery; r.Away {
		o.state.Recovery = nil
		clear(r.Recovery)
	}
	o.line, o.state.Successions = line, raw
	o.wire.renew(pre.NewLoginKey(root.LoginSeed()), raw)
	for i := range o.state.Tasks { // what the old keys signed is in the chain by now, or never will be
		o.state.Tasks[i].Envelope = nil
	}
	o.state.Replacing, o.state.Announced, o.state.Moved = nil, nil, false
	return o.renewSide()
}

// adopt asks what became of this identity: whether a replacement that this device, or the backup it came from, knows of is in force, or one that it knows
// nothing of.
func (o *Owner) adopt(ctx context.Context) error {
	line, raw, err := o.successions(ctx, o.line)
	if err != nil || len(line.Holders) == len(o.line.Holders) {
		return err
	}
	if err := o.install(line, raw); err != nil {
		return err
	}
	// The storefront may have it and this device's chain not yet; then it is met there again.
	o.state.Tasks = slices.DeleteFunc(o.state.Tasks, func(t task) bool { return t.Kind == taskSucceed || t.Kind == taskNotice })
	return o.save()
}

// foreign reports whether a refusal of a login or a signature may mean that the keys are not the identity's, or not any more. Of keys that wait, and that others came before, a server says
// that the signature does not verify: it never knew them.
func foreign(err error) bool {
	return errors.Is(err, policies.CodeUnauthorized) || errors.Is(err, policies.CodeKeyReplaced) || errors.Is(err, policies.CodeSignature)
}

// reason adds to a refusal of this device's login or signature that it was replaced, if that is why.
func (o *Owner) reason(ctx context.Context, err error) error {
	if !foreign(err) || errors.Is(err, ErrReplaced) {
		return err
	}
	if why := o.adopt(ctx); errors.Is(why, ErrReplaced) {
		return fmt.Errorf("%w: %w", why, err)
	}
	return err
}

// following does something, and once more if it failed because another device, with the same new root, put it in force first: this one has it by then.
func (o *Owner) following(ctx context.Context, f func() error) error {
	before := o.line.Newest().Generation
	err := o.reason(ctx, f())
	if (errors.Is(err, policies.CodeUnauthorized) || errors.Is(err, policies.CodeKeyReplaced)) && o.line.Newest().Generation > before {
		err = o.reason(ctx, f())
	}
	return err
}

// sayWhy is reason for what a method is about to return. Whoever calls it holds o.mu.
func (o *Owner) sayWhy(ctx context.Context, err *error) {
	if *err != nil {
		*err = o.reason(ctx, *err)
	}
}

// goOn puts into the queue what a replacement needs next, and reports whether there is something.
func (o *Owner) goOn() bool {
	has := func(kinds ...string) bool {
		return slices.ContainsFunc(o.state.Tasks, func(t task) bool { return slices.Contains(kinds, t.Kind) })
	}
	over := false // nothing is under an older root any more
	if o.former != nil && o.state.Moved && !has(taskForget) {
		under, err := o.underFormer()
		over = !under && err == nil
	}
	switch r := o.state.Replacing; {
	case over:
		o.state.Tasks = append(o.state.Tasks, task{Kind: taskForget, Stroke: policies.NewDocumentID()})
		return true
	case o.former != nil && !o.state.Moved && !has(taskMove, taskReseal, taskForget):
		var front []task
		for _, kind := range []string{taskMove, taskReseal, taskForget} {
			front = append(front, task{Kind: kind, Stroke: policies.NewDocumentID()})
		}
		o.state.Tasks = append(front, o.state.Tasks...)
		return true
	case r != nil && !has(taskSucceed, taskNotice) && (len(r.Authority) > 0 || !r.Notice.IsZero() && o.now().Sub(time.Unix(r.Since, 0)) > succession.Wait+policies.ClockSkew):
		o.state.Tasks = append(o.state.Tasks, task{Kind: taskSucceed, Stroke: policies.NewDocumentID()})
		return true
	case r != nil && r.Unheard && !has(taskNotice):
		o.state.Tasks = append(o.state.Tasks, task{Kind: taskNotice, Stroke: policies.NewDocumentID()})
		return true
	}
	return false
}

// lookBack queues, once on a device that was restored, what readers need to read what others write: the device that was to see to it may be the lost one.
func (o *Owner) lookBack() bool {
	var fields []policies.Field
	for i := range o.state.Writers {
		for _, w := range o.state.Writers[i].Doc.Fields {
			if !slices.Contains(fields, w.Field) {
				fields = append(fields, w.Field)
			}
		}
	}
	if !o.state.Restored || len(o.state.Tasks) > 0 {
		return false
	}
	if o.state.Restored = false; len(fields) > 0 {
		o.state.Tasks = append(o.state.Tasks, task{Kind: taskFollow, Stroke: policies.NewDocumentID(), Fields: fields})
	}
	return len(fields) > 0
}

// moving carries out a task of a replacement that sends nothing itself. done: it was one.
func (o *Owner) moving(ctx context.Context, t *task) (done bool, err error) {
	if t.Kind != taskMove && t.Kind != taskReseal && t.Kind != taskForget {
		return false, nil
	}
	if o.former == nil { // forgotten already
		o.state.Tasks = slices.Delete(o.state.Tasks, 0, 1)
		return true, o.save()
	}
	if o.state.Applied != o.state.Known || !o.mirrored() {
		if err := o.syncChain(ctx); err != nil {
			return true, err
		}
	}
	t = &o.state.Tasks[0]
	rest := o.state.Tasks[1:]
	switch t.Kind {
	case taskMove:
		var fields []policies.Field
		leaves := o.leaves()
		o.learnRoots(leaves)
		for _, l := range leaves {
			if o.before(&l) {
				fields = append(fields, l.Field)
			}
		}
		var rotation []task
		if len(fields) > 0 {
			rotation = []task{{Kind: taskPublish, Stroke: t.Stroke, Rotate: fields}, {Kind: taskRevoke, Stroke: t.Stroke, Reason: policies.ReasonSuperseded}}
		}
		if written := o.writtenBefore(); len(written) > 0 { // also where the owner has no value of their own
			rotation = append(rotation, task{Kind: taskFollow, Stroke: t.Stroke, Fields: written})
		}
		o.state.Tasks = append(rotation, rest...)
	case taskReseal:
		if err := o.resealSome(ctx, t, rest); err != nil {
			return true, err
		}
	case taskForget:
		for _, author := range o.writersOf(nil) {
			_ = o.syncWritten(ctx, author) // the process that queued this may be another, and what cannot be had may be under it
		}
		t, rest = &o.state.Tasks[0], o.state.Tasks[1:]
		if own, err := o.ownUnderFormer(); err != nil {
			return true, err
		} else if own { // something was set while the replacement waited
			o.state.Tasks = append(slices.Clone(rest), task{Kind: taskMove, Stroke: policies.NewDocumentID()}, *t)
			break
		}
		if under, err := o.underFormer(); err != nil {
			return true, err
		} else if under { // of others; they seal for the new root when they write again
			o.state.Moved, o.state.Tasks = true, slices.Clone(rest)
			break
		}
		o.state.Moved = false
		o.forgetFormer()
		o.state.Tasks = slices.Clone(rest)
	}
	o.saveSoon()
	return true, nil
}

// resealSome puts a publication of as many values as fit, sealed anew under new DEKs, before what is left of the task.
func (o *Owner) resealSome(ctx context.Context, t *task, rest []task) error {
	for _, author := range o.writersOf(nil) {
		_ = o.syncWritten(ctx, author) // what cannot be had now is what this device knows
	}
	batch, size := task{Kind: taskPublish, Stroke: policies.NewDocumentID(), Anew: true}, 0
	version := o.state.Manifest.Version + 1
	var last policies.Field
	for _, l := range o.leaves() { // in the order of their names
		if len(t.Fields) > 0 && l.Field <= t.Fields[0] {
			continue
		}
		if o.overtaken(l.Field) { // sealed anew, it would be the newest again
			continue
		}
		sealed, ciphertext, err := o.sealItemAnew(ctx, &l, version)
		if err != nil {
			return err
		}
		if size += len(ciphertext); size > maxPublication && len(batch.Set) > 0 {
			break
		}
		if err := o.store.PutItem(sealed.CiphertextHash, ciphertext); err != nil {
			return err
		}
		batch.Set, last = append(batch.Set, sealed.Bytes()), l.Field
	}
	if len(batch.Set) == 0 {
		o.state.Tasks = slices.Clone(rest)
		return nil
	}
	again := *t
	again.Fields = []policies.Field{last} // up to here it is done
	o.state.Tasks = append([]task{batch, again}, rest...)
	return nil
}

// sealItemAnew seals the value of an item once more, as another version.
func (o *Owner) sealItemAnew(ctx context.Context, l *policies.Leaf, version uint64) (policies.Leaf, []byte, error) {
	if made, ok := o.ahead.sealed[l.Hash()]; ok && made.leaf.Version == version {
		return made.leaf, made.ciphertext, nil
	}
	value, err := o.openLeaf(ctx, l)
	if err != nil {
		return policies.Leaf{}, nil, err
	}
	defer clear(value)
	sealed, ciphertext, err := o.seal(l.Slot, version, value)
	if err != nil {
		return policies.Leaf{}, nil, fmt.Errorf("%s: %w", l.Field, err)
	}
	return sealed, ciphertext, nil
}

// underFormer reports whether anything published, by whoever may write, or waiting to be, is or may be under keys of the root before.
func (o *Owner) underFormer() (bool, error) {
	if o.unseenBefore() {
		return true, nil
	}
	for i := range o.state.Written {
		for _, item := range o.state.Written[i].Items {
			l, err := policies.ParseLeaf(item.Leaf)
			if err != nil {
				return false, fmt.Errorf("%w: %w", ErrState, err)
			}
			if o.before(&l) {
				return true, nil
			}
		}
	}
	return o.ownUnderFormer()
}

func (o *Owner) ownUnderFormer() (bool, error) {
	for _, l := range o.leaves() {
		if o.before(&l) {
			return true, nil
		}
	}
	for i := range o.state.Tasks {
		for _, raw := range o.state.Tasks[i].Set {
			l, err := policies.ParseLeaf(raw)
			if err != nil {
				return false, fmt.Errorf("%w: %w", ErrState, err)
			}
			if o.before(&l) {
				return true, nil
			}
		}
	}
	return false, nil
}

// before reports whether an item of this owner's is under a key of the root before the newest succession.
func (o *Owner) before(l *policies.Leaf) bool { return o.rootUnder(l) != o.root }

// rootUnder is the root that an item is under. Only its capsule tells, which takes a multiplication for each root that it is not under; so what it told is
// remembered for as long as there is more than one root.
func (o *Owner) rootUnder(l *policies.Leaf) *pre.Root {
	roots := o.held()
	if len(roots) == 1 {
		return o.root
	}
	root, ok := o.under[l.Hash()]
	if !ok {
		root = opener(roots, l)
		o.isUnder(l, root)
	}
	return root
}

// opener is the first of some roots with whose key an item opens, or the last one.
func opener(roots []*pre.Root, l *policies.Leaf) *pre.Root {
	for _, root := range roots[:len(roots)-1] {
		key, err := root.FieldKey(l.Slot)
		if err != nil { // of no root
			return root
		}
		opens := key.Opens(l)
		if key.Zero(); opens {
			return root
		}
	}
	return roots[len(roots)-1]
}

// learnRoots finds out of many items which root they are under, with all processors.
func (o *Owner) learnRoots(leaves []policies.Leaf) {
	roots, found := o.held(), make([]*pre.Root, len(leaves))
	var all sync.WaitGroup
	var next atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(leaves); i = next.Add(1) - 1 {
				found[i] = opener(roots, &leaves[i])
			}
		})
	}
	all.Wait()
	for i := range leaves {
		o.isUnder(&leaves[i], found[i])
	}
}

// isUnder remembers the root that an item is under.
func (o *Owner) isUnder(l *policies.Leaf, root *pre.Root) {
	if o.former == nil {
		return
	}
	if o.under == nil {
		o.under = map[policies.Hash]*pre.Root{}
	}
	o.under[l.Hash()] = root
}

// held are the roots that anything is under, the newest first.
func (o *Owner) held() []*pre.Root {
	if o.former == nil {
		return []*pre.Root{o.root}
	}
	return append([]*pre.Root{o.root, o.former}, o.earlier...)
}

func (o *Owner) forgetFormer() {
	for _, root := range o.held()[1:] {
		root.Zero()
	}
	clear(o.state.Former)
	for _, raw := range o.state.Earlier {
		clear(raw)
	}
	o.former, o.state.Former, o.earlier, o.state.Earlier = nil, nil, nil, nil
	o.under = nil
}

// keyOf is the key that an item is under.
func (o *Owner) keyOf(l *policies.Leaf) (*pre.FieldKey, error) {
	return o.rootUnder(l).FieldKey(l.Slot)
}

// overtaken reports whether somebody else wrote something newer of a field, which the owner has neither adopted nor rejected.
func (o *Owner) overtaken(f policies.Field) bool {
	for i := range o.state.Written {
		for _, item := range o.state.Written[i].Items {
			if l, err := policies.ParseLeaf(item.Leaf); err == nil && l.Field == f && !item.Settled {
				return true
			}
		}
	}
	return false
}

// keyFor is the key of a slot.
func (o *Owner) keyFor(slot policies.Slot) (*pre.FieldKey, error) {
	return o.rootFor(slot).FieldKey(slot)
}

// rootFor is the root of a slot's key: the one before for as long as the field's item is under it.
func (o *Owner) rootFor(slot policies.Slot) *pre.Root {
	if slot.Author != o.author() { // the writer seals with the point that it was given, whether this device has seen that or not
		return o.rootOf(slot)
	}
	if o.former != nil {
		leaves := o.state.Leaves // in the order of their names
		i := sort.Search(len(leaves), func(i int) bool {
			l, err := policies.ParseLeaf(leaves[i])
			return err != nil || l.Field >= slot.Field
		})
		if i < len(leaves) {
			if l, err := policies.ParseLeaf(leaves[i]); err == nil && l.Slot == slot {
				return o.rootUnder(&l)
			}
		}
	}
	return o.root
}

// rootOf is the root of which the point of a writer's slot was given out: that which was in force then.
func (o *Owner) rootOf(slot policies.Slot) *pre.Root {
	roots := o.held()
	for i := range o.state.Writers {
		g := &o.state.Writers[i].Doc
		if epoch, ok := g.Epoch(slot.Field); !ok || epoch != slot.Epoch || g.Writer != slot.Author {
			continue
		}
		for n, root := range roots[:len(roots)-1] {
			if at := len(o.line.Holders) - 1 - n; at >= 0 && o.line.Holders[at].Seq < g.Seq {
				return root
			}
		}
		return roots[len(roots)-1]
	}
	return o.root
}

// unseenBefore reports whether somebody may have written with what a root before gave out, and this device does not know what: it could not fetch it, or the storefront says that there is
// nothing, which it may say to hide it. Where the permission ended the vault saw to it that its end names what was written last.
func (o *Owner) unseenBefore() bool {
	return slices.ContainsFunc(o.state.Writers, func(g ownedWriteGrant) bool {
		return g.Doc.Seq < o.line.Newest().Seq && (slices.ContainsFunc(g.Doc.Fields, func(f writing.Field) bool { return g.live(f.Field) && !o.fetched[g.Doc.Writer] }) ||
			slices.ContainsFunc(g.Ended, func(e endedWrite) bool { return !e.Kept.IsZero() && o.seenOf(g.Doc.Writer) < e.Last }))
	})
}

// writtenBefore are the fields that somebody may write with what the root before gave out.
func (o *Owner) writtenBefore() (out []policies.Field) {
	for i := range o.state.Writers {
		g := &o.state.Writers[i]
		for _, f := range g.Doc.Fields {
			if g.live(f.Field) && o.now().Unix() < g.Doc.Expires && g.Doc.Seq < o.line.Newest().Seq && !slices.Contains(out, f.Field) {
				out = append(out, f.Field)
			}
		}
	}
	return out
}
