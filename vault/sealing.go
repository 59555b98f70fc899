package vault

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/api"
	"github.com/sallyport/sallyport/vault/internal/ledger"
	"github.com/sallyport/sallyport/vault/internal/sealed"
)

// Custody sealed: the vault keeps re-encryption keys that the token wrapped.
//
// A grant of it is recorded as an import; the token unwraps each key, tries it, and gives it back under its newest sealing key; the vault
// stores that, durably, and then the grant is recorded. A read takes the key from the store along to the token. A revocation is recorded, waits until
// uses decided before are over, has the token forget the key, deletes it from the store, durably, and records that.
//
// When the token has a new sealing key, the mover brings every key to it in small batches, inside the token. Where it has got to is written in the keys
// themselves, so it goes on after a crash. When none is left under an older sealing key, that is recorded and the sealing key destroyed: from then on no copy
// that anybody kept of a key under it is of use to anybody. A crash between record and destruction makes the next start do both again.
//
// What that does not reach: the token moves whatever opens under the older sealing key, for everybody who has the PIN. A host that kept a copy of a revoked key
// and is hostile while both sealing keys are there can move the copy along, beside the mover. So the end of a sealing key ends copies that lie where no
// token is (backups, thefts), and those of a host that was put right before the next sealing key was made. The rest is for rotation.
//
// Two things make it safe that all this goes on at once. A key is moved only if it is still what was read: a revocation that came in
// between wins, and the key does not return. And no key is stored under a sealing key that the mover is done with: see sealing.gate.

const (
	// moveBatch is how many keys go to the token at once. Reads wait behind that many at most.
	moveBatch = 32
	// sealingCheck is the default of Config.SealingCheck.
	sealingCheck = time.Minute
	// giveUp is at which check the mover gives up keys that do not unwrap, and with them the older sealing key. A token in trouble has until then to recover; for
	// ever they may not keep that key, under which copies of revoked ones can be loaded.
	giveUp = 3
	// fewLost is how many keys the mover gives up by itself. If the token refuses more than these, and more than one in eight of all, it is not
	// some keys that are at fault, but the token, its module or its profile: to destroy the sealing key then would end grants that a person can still save.
	fewLost = 16
	// useAgain bounds how often a use is tried anew because its key was moved meanwhile. Once is enough unless sealing keys are made faster than keys move.
	useAgain = 3
)

// sealing is the state of custody sealed.
type sealing struct {
	store *sealed.Store // nil: none

	// gate is held for reading from before a key is sealed until it is stored, and for writing while newest changes. So when newest has changed, every key
	// that was sealed under an older one is in the store, where the mover finds it, and none comes after it.
	gate   sync.RWMutex
	newest uint32

	older   atomic.Int64 // keys that the mover has before it
	missing atomic.Int64 // keys of grants in force that the start did not find, or the mover could not move
	decoys  atomic.Int64 // keys in the token that call themselves sealing keys and are none

	// The mover's own.
	unmoved string // the last error that it logged
	refused int    // how many times in a row it met keys that do not unwrap
	few     int    // and how many times they were few. A token that recovers in the middle of a round leaves few of many, and the next round finds those
	ending  ending
}

// What the health says when keys of custody sealed are used, and are not stored or not destroyed.
const (
	// keysStopped: whether the last change is on disk is unknown. The start reads the file anew and finishes what is recorded.
	keysStopped = "the file of sealed keys could not be written: in custody sealed nothing is granted, and no revocation is completed, until the disk is mended and the vault started again"
	keysFull    = "no room for another sealed key: in custody sealed nothing is granted until there is"
)

// keysTrouble tells what is wrong with the store, empty if nothing is. Reads go on in either custody, and so does everything in custody resident.
func (v *Vault) keysTrouble() string {
	if v.sealing.store == nil {
		return ""
	}
	switch err := v.sealing.store.Health(); {
	case errors.Is(err, sealed.ErrStopped):
		return keysStopped
	case errors.Is(err, sealed.ErrFull) && slices.Contains(v.custodies(), policies.CustodySealed):
		return keysFull
	}
	return ""
}

// ending is the sealing key whose end is on record and which the token still has.
type ending struct {
	period uint32
	index  uint64 // of the record
	failed bool   // it is on record, too, that the token did not destroy it
}

// losses are keys that the mover leaves behind.
type losses struct {
	ids     map[sealed.ID]bool
	refused int // those among them that open in the store, and that the token does not unwrap
}

func (l *losses) few(of int) bool { return l.refused <= max(fewLost, of/8) }

// custodies are those that the vault document offers.
func (v *Vault) custodies() []policies.Custody {
	var out []policies.Custody
	for _, k := range v.cfg.Document.Tokens[0].ImportKeys {
		out = append(out, k.Custody)
	}
	return out
}

// openSealed opens the store, if there is to be one.
func openSealed(cfg *Config) (*sealed.Store, error) {
	_, offered := cfg.Document.ImportKey(cfg.Serial, policies.CustodySealed)
	switch {
	case cfg.Keys == "" && offered:
		return nil, errors.New("the vault document offers custody sealed, so the vault needs a folder for the sealed keys (`keys` in its configuration)")
	case cfg.Keys == "":
		return nil, nil
	}
	return sealed.Open(sealed.Config{Dir: cfg.Keys, DataKey: cfg.DataKey, Vault: cfg.Document.Vault, Reserve: cfg.Reserve, Logger: cfg.Logger})
}

// startSealing asks the token for its sealing keys, before any key is imported or used.
func (v *Vault) startSealing(ctx context.Context) error {
	inForce := 0
	v.ledger.Read(func(s *ledger.State) {
		inForce = s.Keys(policies.CustodySealed)
		for _, r := range s.Undone() { // what is revoked and not deleted yet counts too
			for _, item := range r.Items {
				if g := s.Grant(item.Grant); g != nil && g.Document.Custody == policies.CustodySealed {
					inForce++
				}
			}
		}
		for _, g := range s.Imports() {
			if g.Document.Custody == policies.CustodySealed {
				inForce++
			}
		}
	})
	offered := slices.Contains(v.custodies(), policies.CustodySealed)
	if v.sealing.store == nil {
		if inForce > 0 {
			return fmt.Errorf("%d keys of grants are in custody sealed, so the vault needs the folder of the sealed keys (`keys` in its configuration)", inForce)
		}
		return nil
	}
	if !offered && inForce == 0 {
		return nil // the token need not know of sealing keys
	}
	periods, err := v.sealingKeys(ctx)
	if err != nil {
		return fmt.Errorf("looking for the token's sealing keys: %w", err)
	}
	if len(periods) == 0 {
		return errors.New("the token has no sealing key, and custody sealed needs one (sallyport-hsm sealing-key makes it)")
	}
	v.sealing.newest = periods[len(periods)-1]
	gone := 0
	for period, n := range v.sealing.store.Periods() {
		if period > v.sealing.newest { // sealing keys only get more: this token is older than what the vault remembers of it
			return fmt.Errorf("%d keys are under sealing key %d, and the newest that the token has is %d: it was put back to an older state, or somebody hid the key",
				n, period, v.sealing.newest)
		}
		if !slices.Contains(periods, period) {
			gone += n
		}
	}
	if gone > 0 {
		v.cfg.Logger.Error("keys are sealed under sealing keys that the token does not have; owners of grants among them must grant again", "keys", gone, "file", v.sealing.store.File())
	}
	return nil
}

// sweepSealed deletes keys that no grant stands for, and says which are missing. Those that are about to be destroyed may be.
func (v *Vault) sweepSealed(wanted map[sealed.ID]bool, ending map[KeyID]bool) error {
	if v.sealing.store == nil {
		return nil
	}
	removed, missing, err := v.sealing.store.Settle(wanted)
	if err != nil {
		return fmt.Errorf("removing sealed keys that no grant stands for: %w", err)
	}
	missing = slices.DeleteFunc(missing, func(id sealed.ID) bool { return ending[KeyID(id)] })
	if removed > 0 {
		v.cfg.Logger.Info("removed sealed keys that no grant stands for", "keys", removed)
	}
	if len(missing) > 0 {
		v.cfg.Logger.Error("sealed keys of grants in force are lost; their owners must grant again", "keys", len(missing), "file", v.sealing.store.File())
		lost := make(map[sealed.ID]bool, len(missing))
		for _, id := range missing {
			lost[id] = true
		}
		v.lost.Add(v.nameLost("it is not in "+v.sealing.store.File()+", or damaged there", func(key KeyID) bool { return lost[sealed.ID(key)] }))
	}
	v.sealing.missing.Store(int64(len(missing)))
	return nil
}

// importSealed imports one key and stores it.
func (v *Vault) importSealed(ctx context.Context, w WrappedKey) error {
	v.sealing.gate.RLock()
	defer v.sealing.gate.RUnlock()
	key, err := v.cfg.Token.ImportSealed(ctx, w)
	if err != nil {
		return err
	}
	if key.Period < v.sealing.newest {
		return fmt.Errorf("the token used sealing key %d, and has %d", key.Period, v.sealing.newest)
	}
	return v.sealing.store.Put(sealed.ID(w.Key), sealed.Key(key))
}

// destroySealed ends sealed keys, once uses of them that were decided before are over. It returns the period of the last sealing key under which one of them
// can lie anywhere: the newest when all was over, since the mover may have had the token wrap it anew just before.
func (v *Vault) destroySealed(ctx context.Context, ends []*end) (period uint32) {
	var forgotten []sealed.ID
	for _, e := range ends {
		v.flights.drain(e.key)
		id := sealed.ID(e.key)
		under, _ := v.sealing.store.Period(id)
		period = max(period, under)
		if e.err = v.cfg.Token.Forget(ctx, e.key); e.err == nil {
			forgotten = append(forgotten, id)
		}
	}
	err := v.sealing.store.Delete(forgotten...)
	for _, e := range ends {
		e.err = cmp.Or(e.err, err)
	}
	v.sealing.gate.RLock()
	defer v.sealing.gate.RUnlock()
	return max(period, v.sealing.newest)
}

// use has the token carry out uses; fromStore tells which of the keys are the vault's to bring.
func (v *Vault) use(ctx context.Context, uses []Use, fromStore func(int) bool) []Derived {
	out := make([]Derived, len(uses))
	var sealedUses []int
	for i := range uses {
		if fromStore(i) {
			sealedUses = append(sealedUses, i)
		}
	}
	if len(sealedUses) == 0 {
		return v.cfg.Token.Derive(ctx, uses)
	}
	places := make([]int, 0, len(uses)) // of what the token is asked
	for i := range uses {
		if !fromStore(i) || v.bring(&uses[i], &out[i]) {
			places = append(places, i)
		}
	}
	for range useAgain {
		if len(places) == 0 {
			break
		}
		ask := make([]Use, len(places))
		for n, i := range places {
			ask[n] = uses[i]
		}
		derived := v.cfg.Token.Derive(ctx, ask)
		var again []int
		for n, i := range places {
			if n >= len(derived) {
				out[i].Err = errors.New("the token gave no answer")
				continue
			}
			out[i] = derived[n]
			clear(derived[n].X[:])
			// The mover may have been faster: then the key is in the store under a newer sealing key, and the older one is gone.
			if before := uses[i].Sealed; len(before.Blob) > 0 && errors.Is(out[i].Err, ErrKeyMissing) {
				if period, ok := v.sealing.store.Period(sealed.ID(uses[i].Key)); ok && period != before.Period && v.bring(&uses[i], &out[i]) {
					again = append(again, i)
				}
			}
		}
		places = again
	}
	return out
}

// bring puts the stored key into a use. What cannot be read is missing, and is named in the vault's log.
func (v *Vault) bring(u *Use, d *Derived) bool {
	key, err := v.sealing.store.Get(sealed.ID(u.Key))
	if err != nil {
		if errors.Is(err, sealed.ErrMissing) || errors.Is(err, sealed.ErrDamaged) {
			err = fmt.Errorf("%w: %w", ErrKeyMissing, err)
		}
		d.Err = err
		return false
	}
	u.Sealed, d.Err = SealedKey(key), nil
	return true
}

// keepSealing looks for new sealing keys, at once and then every so often, until the vault is closed.
func (v *Vault) keepSealing() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	v.chores.Go(func() { <-v.closing; cancel() })
	every := v.cfg.SealingCheck
	if every <= 0 {
		every = sealingCheck
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		err := v.moveKeys(ctx)
		if ctx.Err() != nil {
			return
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != v.sealing.unmoved && text != "" { // said once, not every time
			v.cfg.Logger.Error("sealed keys are not moved to the newest sealing key; it is tried again", "error", text)
		}
		v.sealing.unmoved = text
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sealingKeys asks the token for its sealing keys. Keys that only call themselves so stop nothing, but whoever put them there has the PIN.
func (v *Vault) sealingKeys(ctx context.Context) ([]uint32, error) {
	periods, decoys, err := v.cfg.Token.SealingKeys(ctx)
	if err != nil {
		return nil, err
	}
	if before := v.sealing.decoys.Swap(int64(decoys)); int64(decoys) > before {
		v.cfg.Logger.Warn("keys in the token call themselves sealing keys and are none; they are not used, but whoever made them has the PIN", "keys", decoys)
	}
	return periods, nil
}

// moveKeys brings every key under the newest sealing key and destroys the older ones.
func (v *Vault) moveKeys(ctx context.Context) error {
	if v.sealing.newest == 0 { // custody sealed is neither offered nor in use; only this goroutine changes it from here on
		return nil
	}
	periods, err := v.sealingKeys(ctx)
	if err != nil {
		return err
	}
	if len(periods) == 0 || periods[len(periods)-1] < v.sealing.newest {
		return fmt.Errorf("the token has lost sealing key %d", v.sealing.newest)
	}
	newest := periods[len(periods)-1]
	if newest > v.sealing.newest {
		// Imports that began before are waited for: they may store keys under the older one.
		v.sealing.gate.Lock()
		v.sealing.newest = newest
		v.sealing.gate.Unlock()
		v.cfg.Logger.Info("the token has a new sealing key; sealed keys are moved to it", "period", newest)
	}
	moved := map[uint32]int{}
	lost := &losses{ids: map[sealed.ID]bool{}}
	for { // a second round meets only what changed during the first
		n, err := v.moveRound(ctx, newest, moved, lost)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
	}
	n, few := len(lost.ids), lost.few(len(v.sealing.store.IDs()))
	v.sealing.refused++
	v.sealing.few++
	if n == 0 {
		v.sealing.refused = 0
	}
	if n == 0 || !few {
		v.sealing.few = 0
	}
	switch {
	case n == 0:
	case v.sealing.refused < giveUp || few && v.sealing.few < giveUp:
		return fmt.Errorf("%d of them do not unwrap", n)
	case !few:
		return fmt.Errorf("%d of them do not unwrap, which is too many to give up: older sealing keys are kept, and with them copies of revoked keys; "+
			"find out what changed in the token, its module or its profile", n)
	default:
		v.cfg.Logger.Error("sealed keys do not unwrap, and are not moved; their owners must grant again", "keys", n, "file", v.sealing.store.File())
		v.sealing.missing.Store(max(v.sealing.missing.Load(), int64(n)))
	}
	for _, period := range periods[:len(periods)-1] {
		if err := v.destroySealingKey(ctx, period, newest, moved[period], len(lost.ids)); err != nil {
			return err
		}
	}
	return nil
}

// moveRound moves what lies under an older period than newest, and counts it by period. It returns how many keys it had before it. Keys that the token cannot unwrap are
// put into lost, and left alone in later rounds.
func (v *Vault) moveRound(ctx context.Context, newest uint32, moved map[uint32]int, lost *losses) (int, error) {
	store := v.sealing.store
	var ids []sealed.ID
	for _, id := range store.IDs() {
		if period, ok := store.Period(id); ok && period < newest && !lost.ids[id] {
			ids = append(ids, id)
		}
	}
	all := len(ids)
	defer v.sealing.older.Store(0)
	for len(ids) > 0 {
		v.sealing.older.Store(int64(len(ids)))
		begin := time.Now()
		moves, damaged, next, err := store.Older(ids, newest, moveBatch)
		if err != nil {
			return all, err
		}
		for _, id := range damaged {
			lost.ids[id] = true
		}
		ids = ids[next:]
		if err := v.move(ctx, moves, newest, moved, lost); err != nil {
			return all, err
		}
		// Half of the time is the readers'.
		select {
		case <-ctx.Done():
			return all, ctx.Err()
		case <-time.After(time.Since(begin)):
		}
	}
	return all, nil
}

// move moves one batch. If the token does not take all of them at once, it is asked for each, to find those that do not unwrap.
func (v *Vault) move(ctx context.Context, moves []sealed.Move, newest uint32, moved map[uint32]int, lost *losses) error {
	if len(moves) == 0 {
		return nil
	}
	keys := make([]SealedKey, len(moves))
	for i := range moves {
		keys[i] = SealedKey(moves[i].Old)
	}
	resealed, err := v.cfg.Token.Reseal(ctx, keys)
	if errors.Is(err, ErrKeyMissing) {
		if len(moves) == 1 {
			lost.ids[moves[0].ID] = true
			lost.refused++
			return nil
		}
		for i := range moves {
			if err := v.move(ctx, moves[i:i+1], newest, moved, lost); err != nil {
				return err
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	if len(resealed) != len(moves) || slices.ContainsFunc(resealed, func(k SealedKey) bool { return k.Period != newest }) {
		return fmt.Errorf("the token did not move %d keys to sealing key %d", len(moves), newest)
	}
	for i := range moves {
		moves[i].New = sealed.Key(resealed[i])
	}
	done, err := v.sealing.store.Replace(moves)
	for i := range done {
		moved[done[i]]++
	}
	return err
}

// destroySealingKey records that a sealing key ends, and ends it. No key in force is under it: those that were have been moved, and the gate lets no other in.
// If the token does not destroy it, that is recorded too, once, and that it did in the end.
func (v *Vault) destroySealingKey(ctx context.Context, period, newest uint32, moved, lost int) error {
	e := &v.sealing.ending
	if e.period != period {
		index, err := v.recordSealing(ctx, period, newest, moved, lost)
		if err != nil {
			return err
		}
		*e = ending{period: period, index: index}
	}
	if err := v.cfg.Token.DestroySealingKey(context.WithoutCancel(ctx), period); err != nil {
		err = fmt.Errorf("destroying sealing key %d: %w", period, err)
		if e.failed {
			return err
		}
		_, _, recorded := v.record(context.WithoutCancel(ctx), func(*ledger.State, time.Time) []ledger.Record {
			return []ledger.Record{{
				Kind: evidence.EntryFailed, Outcome: policies.CodeTokenFailure, Details: evidence.Details{
					Index: e.index, Token: v.cfg.Serial, Custody: policies.CustodySealed, Period: period, Note: "the sealing key is not destroyed; it is tried again",
				},
			}}
		})
		e.failed = recorded == nil
		return errors.Join(err, recorded)
	}
	v.cfg.Logger.Info("destroyed a sealing key", "period", period, "keys_moved", moved)
	if e.failed {
		if _, err := v.recordSealing(context.WithoutCancel(ctx), period, newest, 0, lost, "destroyed at a later try"); err != nil {
			return err
		}
	}
	*e = ending{}
	return nil
}

// recordSealing returns the index of its record.
func (v *Vault) recordSealing(ctx context.Context, period, newest uint32, moved, lost int, more ...string) (uint64, error) {
	notes := []string{fmt.Sprintf("keys are under sealing key %d", newest)}
	if lost > 0 {
		notes = append(notes, fmt.Sprintf("%d did not unwrap", lost))
	}
	records, _, err := v.record(ctx, func(*ledger.State, time.Time) []ledger.Record {
		return []ledger.Record{{
			Kind: evidence.EntrySealing, Outcome: policies.CodeAccepted, Details: evidence.Details{
				Token: v.cfg.Serial, Custody: policies.CustodySealed, Period: period, Count: uint64(moved), Note: strings.Join(append(notes, more...), "; "),
			},
		}}
	})
	if err != nil {
		return 0, err
	}
	return records[0].Index, nil
}

func (s *sealing) health() *api.Sealing {
	if s.store == nil {
		return nil
	}
	s.gate.RLock()
	period := s.newest
	s.gate.RUnlock()
	return &api.Sealing{Period: period, Older: uint64(s.older.Load()), Missing: uint64(s.missing.Load()), Decoys: uint64(s.decoys.Load()), Stopped: s.store.Fault() != nil}
}
