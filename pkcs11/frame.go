package pkcs11

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
)

// What a worker and its parent say to each other, over two pipes:
//
//	u32 length of the rest | u8 kind | u32 id | body          integers big-endian
//
// The first frame to a worker is the configuration with the PIN, answered by
// frameReady. Then either side's frames may be in any order; a reply carries
// its request's kind and id. Derives are binary, because they are the hot
// path; everything else is JSON. In a derive, sealed is u16 length of the blob,
// zero for a resident key, and else u32 period | blob.

type frameKind byte

const (
	frameConfig frameKind = 1 + iota // u32 length of JSON | workerConfig | PIN
	frameReady                       // reply
	frameDerive                      // u16 count | count * (32 key, 65 point, sealed); reply: count * (u8 kind, u64 CKR, 32 x)
	frameCall                        // call; reply: reply
)

const (
	frameHeader = 5
	maxRequest  = 2 << 20  // a Seal of 1 MiB in base64
	maxReply    = 64 << 20 // Keys of a million keys
	maxDerives  = 64       // in one frame

	deriveRequestSize = 32 + 65 + 2 // without period and blob
	deriveResultSize  = 1 + 8 + 32
)

var errFrame = errors.New("malformed frame")

func appendFrame(b []byte, kind frameKind, id uint32, body []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(frameHeader+len(body)))
	b = append(b, byte(kind))
	b = binary.BigEndian.AppendUint32(b, id)
	return append(b, body...)
}

// readFrame allocates no more than what has arrived, whatever the length says.
func readFrame(r io.Reader, limit int) (kind frameKind, id uint32, body []byte, err error) {
	var head [4 + frameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < frameHeader || n > uint32(limit) {
		return 0, 0, nil, errFrame
	}
	size := int(n) - frameHeader
	if size <= 64<<10 {
		body = make([]byte, size)
		_, err = io.ReadFull(r, body)
	} else if body, err = io.ReadAll(io.LimitReader(r, int64(size))); err == nil && len(body) != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, 0, nil, err
	}
	return frameKind(head[4]), binary.BigEndian.Uint32(head[5:]), body, nil
}

type workerConfig struct {
	Profile  Profile  `json:"profile"`
	Selector Selector `json:"selector"`
	Threads  int      `json:"threads"`
	LiveKeys int      `json:"live_keys,omitzero"`
}

// packConfig returns a buffer that holds the PIN: the caller zeroes it.
func packConfig(c workerConfig, pin Secret) ([]byte, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, 4+len(text)+len(pin.bytes()))
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	b = append(b, text...)
	return append(b, pin.bytes()...), nil
}

// unpackConfig returns a PIN that shares memory with b.
func unpackConfig(b []byte) (c workerConfig, pin Secret, err error) {
	if len(b) < 4 {
		return c, pin, errFrame
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return c, pin, errFrame
	}
	if err := json.Unmarshal(b[4:4+n], &c, json.RejectUnknownMembers(true)); err != nil {
		return c, pin, errFrame
	}
	return c, NewSecret(b[4+n:]), nil
}

// packRequests is for requests whose blobs are no longer than maxBlob.
func packRequests(requests []DeriveRequest) []byte {
	size := 2 + len(requests)*deriveRequestSize
	for i := range requests {
		size += 4 + len(requests[i].Sealed.Blob)
	}
	b := make([]byte, 0, size) // whole, so that clearing it clears all
	b = binary.BigEndian.AppendUint16(b, uint16(len(requests)))
	for i := range requests {
		b = append(b, requests[i].Key[:]...)
		b = append(b, requests[i].Point[:]...)
		k := &requests[i].Sealed
		b = binary.BigEndian.AppendUint16(b, uint16(len(k.Blob)))
		if len(k.Blob) > 0 {
			b = binary.BigEndian.AppendUint32(b, k.Period)
			b = append(b, k.Blob...)
		}
	}
	return b
}

// unpackRequests returns requests whose blobs share memory with b.
func unpackRequests(b []byte) ([]DeriveRequest, error) {
	if len(b) < 2 {
		return nil, errFrame
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if n == 0 || n > maxDerives || len(b) < n*deriveRequestSize {
		return nil, errFrame
	}
	requests := make([]DeriveRequest, n)
	for i := range requests {
		if len(b) < deriveRequestSize {
			return nil, errFrame
		}
		requests[i].Key = KeyID(b[:32])
		requests[i].Point = [65]byte(b[32:97])
		blob := int(binary.BigEndian.Uint16(b[97:]))
		b = b[deriveRequestSize:]
		if blob == 0 {
			continue
		}
		if blob > maxBlob || len(b) < 4+blob {
			return nil, errFrame
		}
		requests[i].Sealed = SealedKey{Period: binary.BigEndian.Uint32(b), Blob: b[4 : 4+blob : 4+blob]}
		b = b[4+blob:]
	}
	if len(b) > 0 {
		return nil, errFrame
	}
	return requests, nil
}

// packResults returns a buffer that holds secrets: the caller zeroes it.
func packResults(results []DeriveResult) []byte {
	b := make([]byte, 0, len(results)*deriveResultSize)
	for i := range results {
		f := faultOf(results[i].Err)
		b = append(b, byte(f.Kind))
		b = binary.BigEndian.AppendUint64(b, f.CKR)
		b = append(b, results[i].X[:]...)
	}
	return b
}

// unpackResults fills results, one for each request of the frame.
func unpackResults(b []byte, results []DeriveResult) error {
	if len(b) != len(results)*deriveResultSize {
		return errFrame
	}
	for i := range results {
		kind := int(b[0])
		if kind >= len(kinds) {
			return errFrame
		}
		results[i] = DeriveResult{}
		if kind == 0 {
			results[i].X = [32]byte(b[9:deriveResultSize])
		} else {
			results[i].Err = &Error{Op: "deriving", CKR: binary.BigEndian.Uint64(b[1:]), Kind: kinds[kind]}
		}
		b = b[deriveResultSize:]
	}
	return nil
}

// A call is one of a Token's methods and its arguments.
type call struct {
	Method string  `json:"method"`
	ID     KeyID   `json:"id,omitzero"`
	Path   string  `json:"path,omitempty"`
	Data   []byte  `json:"data,omitempty"`
	AAD    []byte  `json:"aad,omitempty"`
	Name   KeyName `json:"name,omitempty"`

	Period  uint32       `json:"period,omitzero"`
	Sealed  []SealedKey  `json:"sealed,omitempty"`
	Imports []WrappedKey `json:"imports,omitempty"`
	Keys    []KeyID      `json:"keys,omitempty"`
	Checks  []KeyCheck   `json:"checks,omitempty"`
}

type reply struct {
	Fault    wireFault         `json:"fault,omitzero"`
	Faults   []wireFault       `json:"faults,omitempty"` // of each key
	Data     []byte            `json:"data,omitempty"`
	Keys     []KeyID           `json:"keys,omitempty"`
	Periods  []uint32          `json:"periods,omitempty"`
	Decoys   int               `json:"decoys,omitzero"`
	Sealed   []SealedKey       `json:"sealed,omitempty"`
	Info     Info              `json:"info,omitzero"`
	Report   KeyReport         `json:"report,omitzero"`
	Findings Findings          `json:"findings,omitzero"`
	Cleaned  Cleaned           `json:"cleaned,omitzero"`
	Calls    map[string]uint64 `json:"calls,omitempty"`
}

// A wireFault is an error on its way to the parent: its kind by number, so
// that errors.Is holds on the other side.
type wireFault struct {
	Kind      int             `json:"kind"`
	Op        string          `json:"op,omitempty"`
	CKR       uint64          `json:"ckr,omitzero"`
	Attribute *AttributeError `json:"attribute,omitempty"`
}

func faultOf(err error) (f wireFault) {
	if err == nil {
		return f
	}
	f.Kind = kindNumber(ErrTokenBroken)
	for i, kind := range kinds[1:] {
		if errors.Is(err, kind) {
			f.Kind = i + 1
			break
		}
	}
	if e, ok := errors.AsType[*AttributeError](err); ok {
		f.Attribute = e
		return f
	}
	if e, ok := errors.AsType[*Error](err); ok {
		f.CKR = e.CKR
	}
	f.Op = err.Error()
	if f.CKR != 0 {
		f.Op = strings.TrimSuffix(f.Op, fmt.Sprintf(" (CKR 0x%x)", f.CKR))
	}
	f.Op = strings.TrimSuffix(f.Op, ": "+kinds[f.Kind].Error())
	return f
}

func faultsOf(errs []error) (faults []wireFault) {
	for _, err := range errs {
		faults = append(faults, faultOf(err))
	}
	return faults
}

func kindNumber(kind error) int {
	for i, k := range kinds {
		if k == kind {
			return i
		}
	}
	return 0
}

func (f wireFault) err() error {
	switch {
	case f.Kind == 0:
		return nil
	case f.Kind < 0 || f.Kind >= len(kinds):
		return errFrame
	case f.Attribute != nil:
		return f.Attribute
	}
	return &Error{Op: f.Op, CKR: f.CKR, Kind: kinds[f.Kind]}
}
