package api

import (
	"time"

	"github.com/sallyport/sallyport/policies"
)

// Bounds of sealed messages.
const (
	// MaxMessage is the length of the longest sealed message in bytes.
	MaxMessage = 64 << 10
	// MaxMessageBody is the longest body that posts one.
	MaxMessageBody = 88 << 10
	// MaxMessageLife is how long a message may wait for its receiver.
	MaxMessageLife = 90 * 24 * time.Hour
	// MaxMessageWait is how long the storefront lets a receiver wait for a message, at most.
	MaxMessageWait = 25 * time.Second
)

// Message is a sealed message on its way from one identity to another. Sealed is HPKE to the receiver's identity KEM key, whose info names type, from and to
// (pre.MessageInfo): what is said outside cannot be changed without the seal breaking. Inside is a document's envelope, signed by the sender.
type Message struct {
	From    policies.IdentityID `json:"from"`
	To      policies.IdentityID `json:"to"`
	Type    string              `json:"type"` // of the document inside
	Expires int64               `json:"expires"`
	Sealed  []byte              `json:"sealed"`
}

// Waiting is a message that waits for its receiver. Numbers of one receiver ascend; they are the storefront's and prove nothing.
type Waiting struct {
	Number uint64 `json:"number"`
	Message
}

// Messages is a page of the messages that wait for the caller, oldest first.
type Messages struct {
	Messages []Waiting `json:"messages"`
	More     bool      `json:"more,omitzero"`
}
