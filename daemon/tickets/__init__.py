"""The ticket desk: tickets, their conversations, and what telephony writes into them."""
