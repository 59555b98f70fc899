package export

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/audit"
)

// FaultCode is what is wrong with a log.
type FaultCode string

// The codes.
const (
	FaultSignature FaultCode = "signature" // the checkpoint is not signed by the vault, or is of another log
	FaultGap       FaultCode = "gap"       // entries or hash tiles that a checkpoint covers are not there
	FaultFork      FaultCode = "fork"      // the log does not continue the checkpoint up to which it was exported
	FaultDamaged   FaultCode = "damaged"   // an entry, body or tile is not the one that was signed
)

// Fault is what is wrong with a log, as an event. There is one event for a fault, however often an export meets it.
type Fault struct {
	Code FaultCode `json:"code"`
	File string    `json:"file,omitempty"` // below the log's folder
	What string    `json:"what"`
	Size uint64    `json:"size,omitempty"` // of the log that was exported without a fault
}

// fault is the fault that an error of reading the log is, or nil if it says nothing about the log itself. size is how many entries
// a checkpoint showed before, code what damage would be.
func fault(err error, code FaultCode, size uint64) *Event {
	var d *audit.DamageError
	f := &Fault{Code: code, Size: size}
	e := &Event{Format: eventFormat, Kind: kindFault, Severity: critical, Fault: f}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil
	case errors.As(err, &d):
		f.File, f.What = d.File, d.Err.Error()
		if d.Index >= 0 {
			index := uint64(d.Index)
			e.Index = &index
		}
	case errors.Is(err, fs.ErrNotExist):
		f.Code, f.What = FaultGap, err.Error()
		var path *fs.PathError
		if errors.As(err, &path) {
			f.File = path.Path
		}
	default:
		return nil
	}
	e.Message = fmt.Sprintf("the key-use log is not in order (%s): %s", f.Code, f.What)
	return e
}

// name gives a fault's event its uid, which is the same whenever the same is wrong, and so tells a receiver that it is.
func (e *Event) name(d *policies.VaultDocument) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%s\n%d", e.Fault.Code, e.Fault.File, e.Fault.What, e.Fault.Size))
	e.Log, e.Vault = d.LogKey.Name, d.Vault
	e.UID = e.Log + "/fault/" + hex.EncodeToString(sum[:8])
}
