package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/evidence"
	"github.com/sallyport/sallyport/storefront/api"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// vaultLife is how long a vault document is used before it is asked for again.
const vaultLife = 10 * time.Minute

// trust is what a device knows of its vault: the newest vault document, and of the key-use log.
type trust struct {
	fetching   sync.Mutex // held while a vault document is fetched, so that one fetch serves all
	mu         sync.Mutex // guards what follows, and is never held over the network
	document   *policies.VaultDocument
	raw        jsontext.Value
	fetched    time.Time
	checkpoint seenCheckpoint // kept
	seen       seen
	changed    bool // seen or checkpoint are not stored yet
}

// load takes over what was stored. A stored document was verified when it came; the pin is compared again.
func (t *trust) load(b *base) error {
	t.checkpoint, t.seen = b.Checkpoint, b.Seen.clone()
	if b.Vault == nil {
		return nil
	}
	e, err := envelope.Parse(b.Vault)
	if err != nil {
		return fmt.Errorf("%w: vault document: %w", ErrState, err)
	}
	if t.document, err = policies.OpenVault(e, b.Network.Vault, b.Network.Ceremony, b.Version); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	t.raw = b.Vault
	return nil
}

// store writes back what is to be kept. The state may be encoded while more is seen.
func (t *trust) store(b *base) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b.Checkpoint, b.Seen, t.changed = t.checkpoint, t.seen.clone(), false
	if t.document != nil {
		b.Vault, b.Version = t.raw, t.document.Version
	}
}

// vault returns the vault document, fresh if one can be had. Storefront and vault are asked in turn; neither is believed:
// the document is signed by the ceremony that was pinned, and never older than one seen before.
func (d *device) vault(ctx context.Context) (*policies.VaultDocument, error) {
	t := &d.trust
	t.fetching.Lock()
	defer t.fetching.Unlock()
	document, fetched := t.current()
	if document != nil && d.now().Sub(fetched) < vaultLife {
		return document, nil
	}
	var newest uint64
	if document != nil {
		newest = document.Version
	}
	fetch := func(r request) error {
		var raw jsontext.Value
		ctx, cancel := context.WithTimeout(ctx, routeTimeout)
		defer cancel()
		r.out = &raw
		if err := d.wire.call(ctx, r); err != nil {
			return err
		}
		e, err := envelope.Parse(raw)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUntrue, err)
		}
		doc, err := policies.OpenVault(e, d.base.Network.Vault, d.base.Network.Ceremony, newest)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUntrue, err)
		}
		document = doc
		t.set(doc, raw, d.now())
		return nil
	}
	err := fetch(request{method: "GET", path: api.PathVault})
	if err != nil && d.wire.owners != nil {
		if second := fetch(request{method: "GET", path: vaultapi.PathVault, base: d.wire.owners}); second == nil {
			err = nil
		}
	}
	switch {
	case err == nil:
	case document != nil && errors.Is(err, policies.CodeUnavailable):
		t.set(nil, nil, d.now().Add(30*time.Second-vaultLife)) // the stored one serves; ask again in half a minute
	default:
		return nil, fmt.Errorf("fetching the vault document: %w", err)
	}
	return document, nil
}

// current is the newest vault document that is known, which may be none, and when it was fetched.
func (t *trust) current() (*policies.VaultDocument, time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.document, t.fetched
}

// set notes a verified vault document, or, with none, only when to ask again.
func (t *trust) set(d *policies.VaultDocument, raw jsontext.Value, fetched time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.fetched = fetched
	if d != nil {
		t.document, t.raw = d, raw
	}
}

// receipt verifies that the vault accepted the document with this hash, as an entry of this kind, in a log that has what was seen before.
func (d *device) receipt(ctx context.Context, v *policies.VaultDocument, r *evidence.Receipt, document policies.Hash, kind evidence.Kind) error {
	_, err := d.opened(ctx, v, r, document, kind)
	return err
}

// opened is receipt with what was recorded.
func (d *device) opened(ctx context.Context, v *policies.VaultDocument, r *evidence.Receipt, document policies.Hash, kind evidence.Kind) (*evidence.Details, error) {
	_, details, err := d.openedAt(ctx, v, r, document, kind)
	return details, err
}

// openedAt is opened with when it was recorded.
func (d *device) openedAt(ctx context.Context, v *policies.VaultDocument, r *evidence.Receipt, document policies.Hash, kind evidence.Kind) (time.Time, *evidence.Details, error) {
	at, entry, details, err := r.Verify(v, document)
	if err != nil {
		return at, nil, fmt.Errorf("%w: receipt: %w", ErrUntrue, err)
	}
	// A grant's import is recorded before the grant itself: only the entry of the right kind says that it is in force.
	if kind != "" && entry.Kind != kind {
		return at, nil, fmt.Errorf("%w: the receipt is for an entry %q, not %q", ErrUntrue, entry.Kind, kind)
	}
	return at, details, d.notice(ctx, v, r.Checkpoint, false)
}
