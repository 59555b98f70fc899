package vault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/vault/internal/ledger"
)

// Bounds of erasing: how often it is looked whether bodies are old enough, how long after the last time they are erased again, and the shortest
// retention. Nonces and daily counts rest on bodies for a day.
const (
	eraseCheck = 10 * time.Minute
	eraseEvery = 24 * time.Hour
	leastKeep  = 48 * time.Hour
)

// keepErasing erases what is old enough, until the vault is closed. What a stop or a crash cut short is done first.
func (v *Vault) keepErasing() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-v.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	tick := time.NewTicker(eraseCheck)
	defer tick.Stop()
	var last time.Time // when bodies were erased last, by this process
	ill := false
	for {
		now := v.cfg.Clock()
		err := v.finishErasing(ctx)
		if err == nil {
			err = v.eraseClosed(ctx)
		}
		if err == nil && v.cfg.KeepBodies > 0 && now.Sub(last).Abs() >= eraseEvery {
			if err = v.eraseOlder(ctx, now.Add(-v.cfg.KeepBodies)); err == nil {
				last = now
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && !ill {
			v.cfg.Logger.Error("bodies whose retention is over are not erased", "error", err.Error())
		}
		ill = err != nil
		select {
		case <-tick.C:
		case <-v.closing:
			return
		}
	}
}

// finishErasing erases what the log says is to be erased, if this process has not done so. It changes nothing where it was done.
func (v *Vault) finishErasing(ctx context.Context) error {
	var from, to uint64
	v.ledger.Read(func(s *ledger.State) { from, to = s.Erasure() })
	if to <= v.erased.Load() {
		return nil
	}
	if err := v.cfg.Log.Erase(ctx, int64(from), int64(to), ledger.Erasable); err != nil {
		return err
	}
	v.erased.Store(to)
	return nil
}

// eraseOlder erases bodies of entries before a time. The log says so first, in an entry that begins a new segment, so that all of them lie in segments
// that nothing is appended to any more.
func (v *Vault) eraseOlder(ctx context.Context, before time.Time) error {
	end, err := v.cfg.Log.Before(before)
	if err != nil {
		return err
	}
	var from uint64
	v.ledger.Read(func(s *ledger.State) { _, from = s.Erasure() })
	if uint64(end) <= from {
		return nil
	}
	v.cfg.Log.Roll()
	_, _, err = v.record(ctx, func(s *ledger.State, _ time.Time) []ledger.Record {
		if _, from = s.Erasure(); uint64(end) <= from {
			return nil
		}
		return []ledger.Record{{
			Kind: evidence.EntryErasure, Outcome: policies.CodeAccepted, Details: evidence.Details{
				Index: from, Count: uint64(end) - from, Note: fmt.Sprintf("retention %s", v.cfg.KeepBodies),
			},
		}}
	})
	if err != nil {
		return err
	}
	return v.finishErasing(ctx)
}

// Erased is how far the bodies that need not be kept are erased: those of entries below this index.
func (v *Vault) Erased() uint64 { return v.erased.Load() }

// errKeep: a retention too short.
var errKeep = errors.New("bodies are kept for 48 hours at least, or for ever")
