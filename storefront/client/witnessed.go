package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// witnessed fetches the checkpoint that the vault publishes, demands the lines of the vault's host and of as many witnesses as asked for, and joins it to
// what this device keeps of the log. Then what the witnesses saw and what this device saw are one history, up to the smaller of the two.
func (d *device) witnessed(ctx context.Context, w evidence.Witnesses) (evidence.Published, error) {
	v, err := d.vault(ctx)
	if err != nil {
		return evidence.Published{}, err
	}
	text, err := d.logFile(ctx, "checkpoint")
	if errors.Is(err, fs.ErrNotExist) {
		return evidence.Published{}, fmt.Errorf("this vault publishes no log, so no witness can see it: %w", err)
	}
	if err != nil {
		return evidence.Published{}, fmt.Errorf("fetching the published checkpoint: %w", err)
	}
	p, err := evidence.OpenPublished(string(text), v, w)
	if errors.Is(err, policies.ErrSignature) {
		return evidence.Published{}, fmt.Errorf("%w: %w", ErrUntrue, err)
	}
	if err != nil {
		return evidence.Published{}, err
	}
	if err := d.notice(ctx, v, string(text), true); err != nil {
		return evidence.Published{}, fmt.Errorf("joining the published checkpoint to the kept one: %w", err)
	}
	return p, nil
}

// Witnessed demands of the published log that the witnesses of a rule saw it as this device does, and tells when they last did. The error is
// [ErrUntrue] if too few of them signed, or one line does not verify, and [ErrFork] if they signed another history than this device was shown.
func (o *Owner) Witnessed(ctx context.Context, w evidence.Witnesses) (evidence.Published, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p, err := o.witnessed(ctx, w)
	return p, errors.Join(err, o.save())
}

// Witnessed is [Owner.Witnessed] of a reader.
func (r *Reader) Witnessed(ctx context.Context, w evidence.Witnesses) (evidence.Published, error) {
	p, err := r.witnessed(ctx, w)
	return p, errors.Join(err, r.Flush())
}
